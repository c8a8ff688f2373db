/*
 * QEMU's compact_xsave_area() and decompact_xsave_area(), compiled from the posted patch and driven from a pipe.
 *
 * xsave_helper.py puts the functions (the added lines of the patch) into FUNCTIONS and compiles this file. QEMU's types
 * are stubs. Every memcpy() and memset() of the functions is checked against the buffers that they were given; what
 * they read directly (the two words of the header) ends at a page that cannot be read. An access outside a buffer, or
 * the assert(), ends the call and is reported.
 *
 * A case on stdin: struct request, then its rows (host, then guest), then the source's bytes.
 * The answer on stdout: struct answer, then the whole destination.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { ROOM = 1 << 20, DECOMPACT = 0, COMPACT = 1 };
enum { DONE = 0, READ_OUTSIDE = 1, WRITE_OUTSIDE = 2, ASSERTED = 3 };

struct request {
    uint32_t function, source_size, target_size, host_rows, guest_rows, padding;
    uint64_t told_size, guest_xcr0, xcr0;
};

struct row {
    uint32_t subleaf, eax, ebx, ecx, edx;
};

struct answer {
    int32_t status, rc;
    uint64_t offset, size;
};

static uint8_t *source, *target;
static struct request request;
static struct row rows[2][64];
static struct answer answer;
static sigjmp_buf out;

static void stop(int status, uint64_t offset, uint64_t size)
{
    answer = (struct answer){ status, 0, offset, size };
    siglongjmp(out, 1);
}

static void *checked_memcpy(void *to, const void *from, size_t size)
{
    uint64_t from_offset = (uint64_t)((uintptr_t)from - (uintptr_t)source);
    uint64_t to_offset = (uint64_t)((uintptr_t)to - (uintptr_t)target);

    if (from_offset + size > request.source_size) {
        stop(READ_OUTSIDE, from_offset, size);
    }
    if (to_offset + size > request.target_size) {
        stop(WRITE_OUTSIDE, to_offset, size);
    }
    return memcpy(to, from, size);
}

static void *checked_memset(void *to, int byte, size_t size)
{
    if (to != target || size > request.target_size) {
        stop(WRITE_OUTSIDE, 0, size);
    }
    return memset(to, byte, size);
}

static void segfault(int number, siginfo_t *info, void *context)
{
    /* The address is the first byte past the end, inside a word of the header. */
    (void)number;
    (void)context;
    stop(READ_OUTSIDE, ((uintptr_t)info->si_addr - (uintptr_t)source) / 8 * 8, 8);
}

static void row_of(int who, uint32_t subleaf, uint32_t *eax, uint32_t *ebx, uint32_t *ecx, uint32_t *edx)
{
    struct row *row = &rows[who][subleaf];

    *eax = row->eax;
    *ebx = row->ebx;
    *ecx = row->ecx;
    *edx = row->edx;
}

/* ---- what QEMU has, as far as the functions use it --------------------------------------------------------------- */

enum { FEAT_XSAVE_XCR0_LO, FEAT_XSAVE_XCR0_HI, FEATURE_WORDS };

typedef struct { uint8_t bytes[512]; } X86LegacyXSaveArea;
typedef struct { uint64_t xstate_bv, xcomp_bv, reserve0; uint8_t reserved[40]; } X86XSaveHeader;
typedef struct {
    uint64_t features[FEATURE_WORDS];
    uint64_t xcr0;
    void *xsave_buf;
    uint32_t xsave_buf_len;
} CPUX86State;

#define QEMU_ALIGN_UP(n, m) (((n) + (m) - 1) / (m) * (m))
#define assert(condition) ((condition) ? (void)0 : stop(ASSERTED, 520, 8))
#define memcpy checked_memcpy
#define memset checked_memset

static void error_report(const char *format, ...)
{
    (void)format;
}

static void cpu_x86_cpuid(CPUX86State *env, uint32_t leaf, uint32_t subleaf, uint32_t *eax, uint32_t *ebx,
                          uint32_t *ecx, uint32_t *edx)
{
    (void)env;
    (void)leaf;
    row_of(1, subleaf, eax, ebx, ecx, edx);
}

static void host_cpuid(uint32_t leaf, uint32_t subleaf, uint32_t *eax, uint32_t *ebx, uint32_t *ecx, uint32_t *edx)
{
    (void)leaf;
    row_of(0, subleaf, eax, ebx, ecx, edx);
}

#include FUNCTIONS

#undef memcpy
#undef memset

/* ---- the pipe ---------------------------------------------------------------------------------------------------- */

static bool take(void *to, size_t size)
{
    return !size || fread(to, size, 1, stdin) == 1;
}

static void give(const void *from, size_t size)
{
    if (size && fwrite(from, size, 1, stdout) != 1) {
        exit(1);
    }
}

int main(void)
{
    uint8_t *pages = mmap(NULL, ROOM + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct sigaction action = { .sa_sigaction = segfault, .sa_flags = SA_SIGINFO | SA_NODEFER };
    uint32_t i;

    if (pages == MAP_FAILED || mprotect(pages + ROOM, 4096, PROT_NONE)) {
        return 1;
    }
    sigaction(SIGSEGV, &action, NULL);
    target = calloc(1, ROOM);
    while (take(&request, sizeof(request))) {
        CPUX86State env = { .xcr0 = request.xcr0 };

        memset(rows, 0, sizeof(rows));
        for (i = 0; i < request.host_rows + request.guest_rows; i++) {
            struct row row;

            if (!take(&row, sizeof(row)) || row.subleaf >= 64) {
                return 1;
            }
            rows[i >= request.host_rows][row.subleaf] = row;
        }
        source = pages + ROOM - request.source_size;
        if (request.source_size > ROOM || request.target_size > ROOM || !take(source, request.source_size)) {
            return 1;
        }
        memset(target, 0xEE, request.target_size);
        env.features[FEAT_XSAVE_XCR0_LO] = (uint32_t)request.guest_xcr0;
        env.features[FEAT_XSAVE_XCR0_HI] = request.guest_xcr0 >> 32;
        answer = (struct answer){ DONE, 0, 0, 0 };
        if (!sigsetjmp(out, 1)) {
            if (request.function == COMPACT) {
                env.xsave_buf = source;
                env.xsave_buf_len = request.source_size;
                answer.rc = compact_xsave_area(&env, target, request.told_size);
            } else {
                env.xsave_buf = target;
                env.xsave_buf_len = request.target_size;
                answer.rc = decompact_xsave_area(source, request.told_size, &env);
            }
        }
        give(&answer, sizeof(answer));
        give(target, request.target_size);
        fflush(stdout);
    }
    return 0;
}
