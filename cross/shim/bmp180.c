/* A Bosch BMP180 at address 0x77 of /dev/i2c-1, for programs that run with this library in LD_PRELOAD, or that are static
 * and linked with it: its functions then stand in for those of the C library.
 *
 * Owns:     the bus as programs see it (open, ioctl, read, write, close) and the chip's registers, with its timing.
 * Does not: touch any other file or device. Nothing else answers on the bus: EREMOTEIO (121), as on a Raspberry Pi.
 *
 * The chip: Bosch BST-BMP180-DS000. Its calibration and raw values are those of the data sheet's example: 15.0 degrees
 * Celsius, 69964 Pa. A conversion takes the longest time that the data sheet allows (table 8); until it ends, the bit SCO
 * is set and out_msb, out_lsb and out_xlsb hold the result before. The bus: Linux, Documentation/i2c/dev-interface.rst.
 *
 * EDEN_SHIM_FILE is the file that is opened in place of the bus, for programs that lock it; without, /dev/null.
 *
 * EDEN_SHIM_FAULT makes it one of:
 *   absent       nothing answers
 *   other-chip   the identity is that of a BMP280
 *   blank        the calibration is all 0xff
 *   floating     every byte that is read is 0xff
 *   stuck        no conversion ends
 *   slow         conversions take three times as long
 *   late         conversions take two thousand times as long
 *   held         each transfer fails with ETIMEDOUT
 *   flaky        each seventh transfer fails with EIO
 */
#define _GNU_SOURCE
/* Debian's compiler for 32 bits sets both; then `open` would be `open64`, and `ioctl` another one. */
#undef _FILE_OFFSET_BITS
#undef _TIME_BITS
#include <errno.h>
#include <fcntl.h>
#include <linux/i2c-dev.h>
#include <linux/i2c.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define BUS "/dev/i2c-1"
#define FILES_MAX 64

enum { ADDRESS = 0x77, ID = 0xD0, RESET = 0xE0, CTRL_MEAS = 0xF4, OUT_MSB = 0xF6, CALIBRATION = 0xAA };
enum { SCO = 0x20, MEASURE_TEMPERATURE = 0x2E, MEASURE_PRESSURE = 0x34, RESET_NOW = 0xB6 };
enum { UT = 27898, UP = 23843 };

static const uint8_t CALIBRATION_BYTES[22] = {
    0x01, 0x98, /* AC1    408 */
    0xFF, 0xB8, /* AC2    -72 */
    0xC7, 0xD1, /* AC3 -14383 */
    0x7F, 0xE5, /* AC4  32741 */
    0x7F, 0xF5, /* AC5  32757 */
    0x5A, 0x71, /* AC6  23153 */
    0x18, 0x2E, /* B1    6190 */
    0x00, 0x04, /* B2       4 */
    0x80, 0x00, /* MB  -32768 */
    0xDD, 0xF9, /* MC   -8711 */
    0x0B, 0x34, /* MD    2868 */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct { int used, fd, address; } files[FILES_MAX];

static uint8_t registers[256];
static uint8_t pointer;
static int64_t ends_us; /* of the conversion that runs; 0: none does */
static uint32_t result;
static unsigned transfers;

static int has_fault(const char *name) {
    const char *fault = getenv("EDEN_SHIM_FAULT");
    return fault != NULL && strcmp(fault, name) == 0;
}

static int64_t now_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static void power_on(void) {
    memset(registers, 0, sizeof registers);
    memcpy(registers + CALIBRATION, CALIBRATION_BYTES, sizeof CALIBRATION_BYTES);
    registers[ID] = 0x55;
    registers[OUT_MSB] = 0x80;
    if (has_fault("other-chip"))
        registers[ID] = 0x58;
    if (has_fault("blank"))
        memset(registers + CALIBRATION, 0xFF, sizeof CALIBRATION_BYTES);
    ends_us = 0;
}

static void finish_conversion(void) {
    if (ends_us == 0 || has_fault("stuck") || now_us() < ends_us)
        return;
    registers[OUT_MSB] = result >> 16;
    registers[OUT_MSB + 1] = result >> 8;
    registers[OUT_MSB + 2] = result;
    registers[CTRL_MEAS] &= (uint8_t)~SCO;
    ends_us = 0;
}

static void start_conversion(uint8_t command) {
    static const int pressure_us[4] = {4500, 7500, 13500, 25500};
    unsigned oss = command >> 6, times = has_fault("slow") ? 3 : has_fault("late") ? 2000 : 1;
    if (command == MEASURE_TEMPERATURE) {
        result = (uint32_t)UT << 8;
        ends_us = now_us() + 4500LL * times;
    } else if ((command & 0x3F) == MEASURE_PRESSURE) {
        /* More samples give more bits below; the data sheet's value is that of one. */
        result = ((uint32_t)UP << oss) << (8 - oss);
        ends_us = now_us() + (int64_t)pressure_us[oss] * times;
    }
}

static void write_register(uint8_t number, uint8_t value) {
    if (number == RESET && value == RESET_NOW)
        power_on();
    if (number == CTRL_MEAS) {
        registers[CTRL_MEAS] = value;
        start_conversion(value);
    }
}

/* One transfer, from start to stop. Returns how many messages were done, or -1 with errno. */
static int transfer(struct i2c_msg *messages, unsigned count) {
    static int is_on;
    if (!is_on) {
        power_on();
        is_on = 1;
    }
    transfers++;
    if (has_fault("held"))
        return errno = ETIMEDOUT, -1;
    if (has_fault("flaky") && transfers % 7 == 0)
        return errno = EIO, -1;
    if (has_fault("absent"))
        return errno = EREMOTEIO, -1;
    int begins = 1;
    for (unsigned i = 0; i < count; i++) {
        struct i2c_msg *message = &messages[i];
        if (message->addr != ADDRESS)
            return errno = EREMOTEIO, -1;
        if (!(message->flags & I2C_M_NOSTART))
            begins = 1;
        finish_conversion();
        for (unsigned at = 0; at < message->len; at++) {
            if (message->flags & I2C_M_RD)
                message->buf[at] = has_fault("floating") ? 0xFF : registers[pointer++];
            else if (begins) {
                pointer = message->buf[at];
                begins = 0;
            } else
                write_register(pointer++, message->buf[at]);
        }
    }
    return (int)count;
}

/* What i2cget, i2cset and i2cdetect use. */
static int smbus(int address, struct i2c_smbus_ioctl_data *asked) {
    uint8_t out[2] = {asked->command, 0}, in[2] = {0, 0};
    struct i2c_msg messages[2] = {
        {.addr = (uint16_t)address, .flags = 0, .len = 1, .buf = out},
        {.addr = (uint16_t)address, .flags = I2C_M_RD, .len = 1, .buf = in},
    };
    int is_read = asked->read_write == I2C_SMBUS_READ, done;
    switch (asked->size) {
    case I2C_SMBUS_QUICK:
        messages[0].len = 0;
        return transfer(messages, 1) < 0 ? -1 : 0;
    case I2C_SMBUS_BYTE:
        done = transfer(is_read ? &messages[1] : &messages[0], 1);
        break;
    case I2C_SMBUS_BYTE_DATA:
        out[1] = is_read ? 0 : asked->data->byte;
        messages[0].len = is_read ? 1 : 2;
        done = transfer(messages, is_read ? 2 : 1);
        break;
    case I2C_SMBUS_WORD_DATA:
        if (!is_read)
            return errno = EOPNOTSUPP, -1;
        messages[1].len = 2;
        done = transfer(messages, 2);
        break;
    default:
        return errno = EOPNOTSUPP, -1;
    }
    if (done >= 0 && is_read) {
        if (asked->size == I2C_SMBUS_WORD_DATA)
            asked->data->word = (uint16_t)(in[0] | in[1] << 8);
        else
            asked->data->byte = in[0];
    }
    return done < 0 ? -1 : 0;
}

static int find(int fd) {
    for (int i = 0; i < FILES_MAX; i++)
        if (files[i].used && files[i].fd == fd)
            return i;
    return -1;
}

static int open_bus(int flags) {
    const char *file = getenv("EDEN_SHIM_FILE");
    int fd = (int)syscall(SYS_openat, AT_FDCWD, file != NULL ? file : "/dev/null", (flags & O_CLOEXEC) | O_RDWR);
    if (fd < 0)
        return fd;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < FILES_MAX; i++) {
        if (!files[i].used) {
            files[i].used = 1;
            files[i].fd = fd;
            files[i].address = 0;
            pthread_mutex_unlock(&lock);
            return fd;
        }
    }
    pthread_mutex_unlock(&lock);
    close(fd);
    return errno = EMFILE, -1;
}

#define OPEN(name)                                                                                                     \
    int name(const char *path, int flags, ...) {                                                                       \
        va_list more;                                                                                                  \
        va_start(more, flags);                                                                                         \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0;                                        \
        va_end(more);                                                                                                  \
        if (strcmp(path, BUS) == 0)                                                                                    \
            return open_bus(flags);                                                                                    \
        return (int)syscall(SYS_openat, AT_FDCWD, path, flags | O_LARGEFILE, mode);                                    \
    }

/* What is not for the bus goes on to the kernel: a static program has no other function of the same name to call. */
OPEN(open)
#ifdef __GLIBC__
OPEN(open64)
#endif

int close(int fd) {
    pthread_mutex_lock(&lock);
    int at = find(fd);
    if (at >= 0)
        files[at].used = 0;
    pthread_mutex_unlock(&lock);
    return (int)syscall(SYS_close, fd);
}

static int bus_ioctl(int at, unsigned long request, void *argument) {
    switch (request) {
    case I2C_SLAVE:
    case I2C_SLAVE_FORCE:
        if ((uintptr_t)argument > 0x7F)
            return errno = EINVAL, -1;
        files[at].address = (int)(uintptr_t)argument;
        return 0;
    case I2C_PEC:
    case I2C_TENBIT:
        return argument == NULL ? 0 : (errno = EINVAL, -1);
    case I2C_FUNCS:
        *(unsigned long *)argument = I2C_FUNC_I2C | I2C_FUNC_NOSTART | I2C_FUNC_SMBUS_QUICK | I2C_FUNC_SMBUS_BYTE |
                                     I2C_FUNC_SMBUS_BYTE_DATA | I2C_FUNC_SMBUS_READ_WORD_DATA;
        return 0;
    case I2C_RDWR: {
        struct i2c_rdwr_ioctl_data *asked = argument;
        if (asked->nmsgs > I2C_RDWR_IOCTL_MAX_MSGS)
            return errno = EINVAL, -1;
        return transfer(asked->msgs, asked->nmsgs);
    }
    case I2C_SMBUS:
        return smbus(files[at].address, argument);
    default:
        return errno = ENOTTY, -1;
    }
}

int ioctl(int fd, unsigned long request, ...) {
    va_list more;
    va_start(more, request);
    void *argument = va_arg(more, void *);
    va_end(more);
    pthread_mutex_lock(&lock);
    int at = find(fd);
    if (at >= 0) {
        int done = bus_ioctl(at, request, argument);
        pthread_mutex_unlock(&lock);
        return done;
    }
    pthread_mutex_unlock(&lock);
    return (int)syscall(SYS_ioctl, fd, request, argument);
}

#define PLAIN(name, buffer, direction)                                                                                 \
    ssize_t name(int fd, buffer bytes, size_t count) {                                                                 \
        pthread_mutex_lock(&lock);                                                                                     \
        int at = find(fd);                                                                                             \
        if (at >= 0) {                                                                                                 \
            struct i2c_msg message = {.addr = (uint16_t)files[at].address, .flags = direction,                         \
                                      .len = (uint16_t)(count > 8192 ? 8192 : count), .buf = (uint8_t *)bytes};        \
            int done = transfer(&message, 1);                                                                          \
            pthread_mutex_unlock(&lock);                                                                               \
            return done < 0 ? -1 : (ssize_t)message.len;                                                               \
        }                                                                                                              \
        pthread_mutex_unlock(&lock);                                                                                   \
        return syscall(SYS_##name, fd, bytes, count);                                                                  \
    }

PLAIN(read, void *, I2C_M_RD)
PLAIN(write, const void *, 0)
