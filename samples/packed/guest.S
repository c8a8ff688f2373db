/*
 * The guest of the packed x86 streams: a 64 KiB BIOS that only fills memory, so that a stream compresses to a
 * few kB. 4..5 MiB: every page has its own number 64 times and a byte in the middle; 8..9 MiB: every third page.
 * Then "SPIN" at 0x180000. With -DDIRTY it then counts in two places of each page of 4..8 MiB forever.
 *   gcc -c -m32 [-DDIRTY=0x400] guest.S -o guest.o && ld -m elf_i386 -Ttext 0xffff0000 --oformat binary -e 0 guest.o
 */
 .code16
 .text
 .globl _start
_start:
 cli
 lgdtl %cs:gdtr - _start
 mov %cr0, %eax
 or $1, %al
 mov %eax, %cr0
 ljmpl $8, $flat
gdt:
 .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
gdtr:
 .word 23
 .long gdt
 .code32
flat:
 mov $16, %eax
 mov %eax, %ds
 mov %eax, %es
 mov $0x400000, %ebx
 mov $0x1000, %ebp
1: mov $11f, %esi
 jmp fill
11:
 cmp $0x500000, %ebx
 jb 1b
 mov $0x800000, %ebx
 mov $0x3000, %ebp
2: mov $22f, %esi
 jmp fill
22:
 cmp $0x900000, %ebx
 jb 2b
 movl $0x4e495053, 0x180000
#ifdef DIRTY
3: mov $0x400000, %ebx
4: incl 0x123(%ebx)
 incb 0xf00(%ebx)
 mov $DIRTY, %ecx
5: dec %ecx
 jnz 5b
 add $0x1000, %ebx
 cmp $0x800000, %ebx
 jb 4b
 jmp 3b
#else
3: pause
 jmp 3b
#endif
fill:
 mov %ebx, %edi
 mov %ebx, %eax
 shr $12, %eax
 mov $64, %ecx
 cld
6: mov %eax, (%edi)
 add $4, %edi
 dec %ecx
 jnz 6b
 mov %al, 0x800(%ebx)
 add %ebp, %ebx
 jmp *%esi
 .org 0xfff0
 .code16
 jmp _start
 .org 0x10000
