/*
 * A stand-in for /dev/mshv: a library to preload into QEMU 11.1, which then starts with -accel mshv on any machine.
 *
 * It answers the ioctls from memory. No guest code ever runs: MSHV_RUN_VP waits a little and says EINTR. Registers and
 * VP states that QEMU sets are kept, and given back when QEMU asks; everything is logged, so that a test can compare
 * what QEMU writes with what it should, or can hand QEMU an XSAVE page and read what it saves. What a real hypervisor
 * would refuse is not refused here.
 *
 * Numbers and structures: Linux include/uapi/linux/mshv.h and include/hyperv/hvgdk*.h, hvhdk*.h.
 *
 * Environment (numbers in any base that C reads):
 *   MSHV_STANDIN_LOG       file, appended to: one line per call (tests/oracle/mshv.py reads it)
 *   MSHV_STANDIN_STATES    folder: each VP state that is set, as vp<N>-state<TYPE>.bin
 *   MSHV_STANDIN_XSAVE     file: what MSHV_GET_VP_STATE returns for XSAVE, in place of what was set
 *   MSHV_STANDIN_LAYOUT    the partition's XSAVE_STATES (7)
 *   MSHV_STANDIN_MAX_XSAVE its MAX_XSAVE_DATA_SIZE (4096)
 *   MSHV_STANDIN_FEATURES  its processor features, each word of them (0)
 */
#define _GNU_SOURCE
#include <cpuid.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum { MAX_FD = 1024, MAX_VP = 64, MAX_REGISTERS = 1024, MAX_STATE = 65536, STATE_TYPES = 8, MAX_PROPERTIES = 256 };

/* What a descriptor is. */
enum { DEVICE = 1, PARTITION, VP };

/* The low byte of an ioctl's number; they start anew for each kind of descriptor. */
enum { CREATE_PARTITION = 0, ROOT_HVCALL = 7 };
enum { CREATE_VP = 1 };
enum { RUN_VP = 0, GET_VP_STATE = 1, SET_VP_STATE = 2 };

enum { GET_PARTITION_PROPERTY = 0x44, SET_PARTITION_PROPERTY = 0x45, GET_VP_REGISTERS = 0x50, SET_VP_REGISTERS = 0x51 };
enum { REGISTER_INTERCEPT_RESULT = 0x91 };

enum { PROPERTY_FEATURES_FIRST = 0x60001, PROPERTY_XSAVE_STATES = 0x60007, PROPERTY_MAX_XSAVE_DATA_SIZE = 0x60008 };
enum { PROPERTY_FEATURES_0 = 0x6000a, PROPERTY_FEATURES_1 = 0x6000b };

enum { STATE_XSAVE = 1 };

struct root_hvcall {
    uint16_t code, reps, in_size, out_size, status;
    uint8_t reserved[6];
    uint64_t in, out;
};

struct vp_state {
    uint8_t type, reserved[3];
    uint32_t size;
    uint64_t buffer;
};

struct vp_register {
    uint32_t name;
    uint64_t low, high;
};

struct virtual_processor {
    struct vp_register registers[MAX_REGISTERS];
    int used;
    uint8_t *states[STATE_TYPES];
};

static struct { uint8_t kind; uint32_t vp; } files[MAX_FD];
static struct virtual_processor vps[MAX_VP];
static struct { uint32_t code; uint64_t value; } properties[MAX_PROPERTIES];
static int property_count;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static uint64_t number(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);

    return text ? strtoull(text, NULL, 0) : otherwise;
}

/* Opened at the first line, so that the other programs which QEMU starts, or which start it, log nothing. */
static FILE *log_file(void)
{
    static FILE *file;

    if (!file) {
        const char *path = getenv("MSHV_STANDIN_LOG");
        uint32_t a, b, c, d, i;

        file = fopen(path ? path : "/dev/null", "a");
        if (!file) {
            abort();
        }
        setvbuf(file, NULL, _IOLBF, 0);
        for (i = 0; i < 63; i++) {
            __cpuid_count(0xD, i, a, b, c, d);
            fprintf(file, "HOST %u %x %x %x %x\n", i, a, b, c, d);
        }
    }
    return file;
}

/* ---- what is kept ------------------------------------------------------------------------------------------------ */

static struct vp_register *vp_register(uint32_t vp, uint32_t name)
{
    struct virtual_processor *one = &vps[vp % MAX_VP];
    int i;

    for (i = 0; i < one->used; i++) {
        if (one->registers[i].name == name) {
            return &one->registers[i];
        }
    }
    if (one->used == MAX_REGISTERS) {
        abort();
    }
    one->registers[one->used].name = name;
    return &one->registers[one->used++];
}

/* A state that nobody has set: zeros, and for XSAVE the initial configuration. */
static uint8_t *vp_state(uint32_t vp, unsigned type)
{
    uint8_t **state = &vps[vp % MAX_VP].states[type];

    if (!*state) {
        *state = calloc(1, MAX_STATE);
        if (type == STATE_XSAVE) {
            uint64_t xcomp_bv = number("MSHV_STANDIN_LAYOUT", 7) | 1ULL << 63;

            memcpy(*state, "\x7f\x03", 2);
            memcpy(*state + 24, "\x80\x1f", 2);
            memcpy(*state + 520, &xcomp_bv, sizeof(xcomp_bv));
        }
    }
    return *state;
}

static void read_page(uint8_t *state)
{
    const char *path = getenv("MSHV_STANDIN_XSAVE");
    FILE *file = path ? fopen(path, "r") : NULL;

    if (!path) {
        return;
    }
    memset(state, 0, MAX_STATE);
    if (!file || !fread(state, 1, MAX_STATE, file)) {
        abort();
    }
    fclose(file);
}

static void dump_state(uint32_t vp, unsigned type, uint32_t size)
{
    const char *folder = getenv("MSHV_STANDIN_STATES");
    char path[4096];
    FILE *file;

    if (!folder) {
        return;
    }
    snprintf(path, sizeof(path), "%s/vp%u-state%u.bin", folder, vp, type);
    file = fopen(path, "w");
    if (!file || fwrite(vp_state(vp, type), 1, size, file) != size) {
        abort();
    }
    fclose(file);
}

static uint64_t property(uint32_t code)
{
    int i;

    for (i = property_count - 1; i >= 0; i--) {
        if (properties[i].code == code) {
            return properties[i].value;
        }
    }
    switch (code) {
    case PROPERTY_XSAVE_STATES:
        return number("MSHV_STANDIN_LAYOUT", 7);
    case PROPERTY_MAX_XSAVE_DATA_SIZE:
        return number("MSHV_STANDIN_MAX_XSAVE", 4096);
    case PROPERTY_FEATURES_FIRST:
    case PROPERTY_FEATURES_0:
    case PROPERTY_FEATURES_1:
        return number("MSHV_STANDIN_FEATURES", 0);
    default:
        return 0;
    }
}

/* ---- hypercalls -------------------------------------------------------------------------------------------------- */

/* struct hv_input_get/set_vp_registers: partition u64, vp u32, vtl and padding u32, then names or associations. */
static void registers(const struct root_hvcall *call, const uint8_t *in, uint8_t *out)
{
    uint32_t vp;
    int i;

    memcpy(&vp, in + 8, sizeof(vp));
    for (i = 0; i < call->reps; i++) {
        const uint8_t *entry = in + 16 + (call->code == SET_VP_REGISTERS ? 32 : 4) * i;
        struct vp_register *one;
        uint32_t name;

        memcpy(&name, entry, sizeof(name));
        one = vp_register(vp, name);
        if (call->code == SET_VP_REGISTERS) {
            memcpy(&one->low, entry + 16, 8);
            memcpy(&one->high, entry + 24, 8);
        } else {
            memcpy(out + 16 * i, &one->low, 8);
            memcpy(out + 16 * i + 8, &one->high, 8);
        }
        fprintf(log_file(), "%s %u %x %lx %lx\n", call->code == SET_VP_REGISTERS ? "SETREG" : "GETREG", vp, name,
                one->high, one->low);
    }
}

/* struct hv_input_register_intercept_result for CPUID: the guest's row, four registers and the mask of each. */
static void cpuid_result(const struct root_hvcall *call, const uint8_t *in)
{
    uint32_t vp, leaf, subleaf, row[8];

    if (call->in_size < 60) {
        return;
    }
    memcpy(&vp, in + 8, 4);
    memcpy(&leaf, in + 16, 4);
    memcpy(&subleaf, in + 20, 4);
    memcpy(row, in + 28, sizeof(row));
    fprintf(log_file(), "CPUID %u %x %x %x %x %x %x %x %x %x %x\n", vp, leaf, subleaf, row[0], row[2], row[4], row[6],
            row[1], row[3], row[5], row[7]);
}

static void hypercall(struct root_hvcall *call)
{
    uint8_t *in = (uint8_t *)(uintptr_t)call->in, *out = (uint8_t *)(uintptr_t)call->out;
    uint64_t words[3] = { 0 };
    int i;

    if (in) {
        memcpy(words, in, call->in_size < sizeof(words) ? call->in_size : sizeof(words));
    }
    if (out && call->out_size) {
        memset(out, 0, call->out_size);
    }
    switch (call->code) {
    case GET_VP_REGISTERS:
    case SET_VP_REGISTERS:
        registers(call, in, out);
        break;
    case GET_PARTITION_PROPERTY:
        words[2] = property((uint32_t)words[1]);
        memcpy(out, &words[2], sizeof(words[2]));
        fprintf(log_file(), "GETPROPERTY %x %lx\n", (uint32_t)words[1], words[2]);
        break;
    case SET_PARTITION_PROPERTY:
        if (property_count == MAX_PROPERTIES) {
            abort();
        }
        properties[property_count].code = (uint32_t)words[1];
        properties[property_count++].value = words[2];
        fprintf(log_file(), "SETPROPERTY %x %lx\n", (uint32_t)words[1], words[2]);
        break;
    case REGISTER_INTERCEPT_RESULT:
        cpuid_result(call, in);
        break;
    default:
        for (i = 0; out && i + 8 <= call->out_size; i += 8) {
            words[0] = number("MSHV_STANDIN_FEATURES", 0);
            memcpy(out + i, &words[0], 8);
        }
        fprintf(log_file(), "HVCALL %x reps %u in %u out %u\n", call->code, call->reps, call->in_size, call->out_size);
    }
    call->status = 0;
}

/* ---- ioctls ------------------------------------------------------------------------------------------------------ */

static int new_file(int kind, uint32_t vp)
{
    int fd = memfd_create("mshv-standin", MFD_CLOEXEC);

    if (fd < 0 || fd >= MAX_FD) {
        abort();
    }
    files[fd].kind = kind;
    files[fd].vp = vp;
    return fd;
}

static void get_or_set_state(uint32_t vp, const struct vp_state *wanted, int set)
{
    unsigned type = wanted->type % STATE_TYPES;
    uint8_t *state = vp_state(vp, type);
    void *buffer = (void *)(uintptr_t)wanted->buffer;
    uint32_t size = wanted->size < MAX_STATE ? wanted->size : MAX_STATE;

    fprintf(log_file(), "%s %u %u %u\n", set ? "SETSTATE" : "GETSTATE", vp, type, wanted->size);
    if (set) {
        memcpy(state, buffer, size);
        dump_state(vp, type, size);
        return;
    }
    if (type == STATE_XSAVE) {
        read_page(state);
    }
    memcpy(buffer, state, size);
}

static int answer(int fd, unsigned number_, void *argument)
{
    uint32_t vp = files[fd].vp;

    if (number_ == ROOT_HVCALL) {
        hypercall(argument);
        return 0;
    }
    if (files[fd].kind == DEVICE) {
        return number_ == CREATE_PARTITION ? new_file(PARTITION, 0) : 0;
    }
    if (files[fd].kind == PARTITION) {
        return number_ == CREATE_VP ? new_file(VP, *(uint32_t *)argument) : 0;
    }
    if (number_ == GET_VP_STATE || number_ == SET_VP_STATE) {
        get_or_set_state(vp, argument, number_ == SET_VP_STATE);
    }
    return 0;
}

/* From here on QEMU asks for the vCPU's state when it wants it: before, it has the one that it set itself. */
static void log_first_run(uint32_t vp)
{
    static uint8_t has_run[MAX_VP];

    pthread_mutex_lock(&lock);
    if (!has_run[vp % MAX_VP]) {
        has_run[vp % MAX_VP] = 1;
        fprintf(log_file(), "RUN %u\n", vp);
    }
    pthread_mutex_unlock(&lock);
}

int ioctl(int fd, unsigned long request, ...)
{
    static int (*real)(int, unsigned long, ...);
    unsigned number_ = request & 0xff;
    va_list arguments;
    void *argument;
    int result;

    va_start(arguments, request);
    argument = va_arg(arguments, void *);
    va_end(arguments);
    if (fd < 0 || fd >= MAX_FD || !files[fd].kind) {
        if (!real) {
            real = (int (*)(int, unsigned long, ...))dlsym(RTLD_NEXT, "ioctl");
        }
        return real(fd, request, argument);
    }
    if (files[fd].kind == VP && number_ == RUN_VP) {
        log_first_run(files[fd].vp);
        nanosleep(&(struct timespec){ .tv_nsec = 50000000 }, NULL);
        errno = EINTR;
        return -1;
    }
    pthread_mutex_lock(&lock);
    result = answer(fd, number_, argument);
    pthread_mutex_unlock(&lock);
    return result;
}

/* ---- opening and closing ----------------------------------------------------------------------------------------- */

#define OPEN(name)                                                                          \
    int name(const char *path, int flags, ...)                                              \
    {                                                                                       \
        static int (*real)(const char *, int, ...);                                         \
        va_list arguments;                                                                  \
        int mode;                                                                           \
                                                                                            \
        va_start(arguments, flags);                                                         \
        mode = va_arg(arguments, int);                                                      \
        va_end(arguments);                                                                  \
        if (!strcmp(path, "/dev/mshv")) {                                                   \
            return new_file(DEVICE, 0);                                                     \
        }                                                                                   \
        if (!real) {                                                                        \
            real = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, #name);                \
        }                                                                                   \
        return real(path, flags, mode);                                                     \
    }

OPEN(open)
OPEN(open64)
OPEN(__open_2)
OPEN(__open64_2)

int close(int fd)
{
    static int (*real)(int);

    if (fd >= 0 && fd < MAX_FD) {
        files[fd].kind = 0;
    }
    if (!real) {
        real = (int (*)(int))dlsym(RTLD_NEXT, "close");
    }
    return real(fd);
}
