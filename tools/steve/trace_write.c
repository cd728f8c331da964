/* Encodes events into frames and writes them. */
#include "trace_write.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "trace_codec.h"

/* An event's first byte and numbers, and what a skippable one has besides. */
enum { OPERANDS_MAX = (TRACE_STACK_MAX + 5) * TRACE_VARINT_MAX + TRACE_NAME_MAX };
enum { STACK_PLACES = 2 * TRACE_FRAME_STACKS };
enum { EVENT_BYTES_MAX = 1 + 3 * TRACE_VARINT_MAX + OPERANDS_MAX };

struct trace_writer {
    int descriptor;
    int compress;
    uint64_t offset; /* bytes written to the file */
    uint64_t events; /* added, the buffered ones included */
    uint64_t frame_first;
    uint64_t last_time;
    uint32_t last_thread;
    uint32_t last_block;
    uint32_t last_used; /* block of the last access, lock or unlock */
    uint8_t *at;        /* in raw */
    /* The stacks of this frame: a hash table of those that can be named again. */
    struct writer_stack {
        uint32_t place; /* + 1 of the operands in raw; 0 = none */
        uint16_t size;
        uint16_t index;
    } stacks[STACK_PLACES];
    uint32_t stack_count;
    char name[256];
    uint8_t raw[TRACE_FRAME_RAW_TARGET + EVENT_BYTES_MAX];
    uint8_t packed[TRACE_FRAME_RAW_TARGET + EVENT_BYTES_MAX];
};

static int write_all(struct trace_writer *writer, const void *bytes, size_t size,
                     struct trace_error *error) {
    const uint8_t *at = bytes;
    while (size > 0) {
        ssize_t written = write(writer->descriptor, at, size);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0) {
            snprintf(error->text, sizeof error->text, "%s: cannot write at offset %llu: %s",
                     writer->name, (unsigned long long)writer->offset,
                     written < 0 ? strerror(errno) : "nothing was written");
            return -1;
        }
        at += written;
        size -= (size_t)written;
        writer->offset += (uint64_t)written;
    }
    return 0;
}

static int write_header(struct trace_writer *writer, const struct trace_header *header,
                        struct trace_error *error) {
    uint32_t command_bytes = header->command_bytes;
    if (command_bytes > TRACE_COMMAND_MAX)
        command_bytes = TRACE_COMMAND_MAX;
    size_t size = TRACE_HEADER_BYTES + command_bytes + 4;
    uint8_t *bytes = calloc(1, size);
    if (bytes == NULL) {
        snprintf(error->text, sizeof error->text, "%s: out of memory", writer->name);
        return -1;
    }
    memcpy(bytes, TRACE_MAGIC, 8);
    trace_put_u16(bytes + 8, TRACE_VERSION_MAJOR);
    trace_put_u16(bytes + 10, TRACE_VERSION_MINOR);
    trace_put_u32(bytes + 12, (uint32_t)size);
    trace_put_u32(bytes + 16, writer->compress ? TRACE_FLAG_ZSTD : 0);
    trace_put_u32(bytes + 20, header->pid);
    trace_put_u64(bytes + 24, header->start_unix_us);
    trace_put_u32(bytes + 32, header->page_size);
    trace_put_u32(bytes + 36, command_bytes);
    if (command_bytes != 0)
        memcpy(bytes + TRACE_HEADER_BYTES, header->command, command_bytes);
    trace_put_u32(bytes + size - 4, trace_crc32(0, bytes, size - 4));
    int result = write_all(writer, bytes, size, error);
    free(bytes);
    return result;
}

struct trace_writer *trace_writer_create(int descriptor, const char *name,
                                         const struct trace_header *header, int compress,
                                         struct trace_error *error) {
    struct trace_writer *writer = calloc(1, sizeof *writer);
    if (writer == NULL) {
        snprintf(error->text, sizeof error->text, "%s: out of memory", name);
        close(descriptor);
        return NULL;
    }
    writer->descriptor = descriptor;
    writer->compress = compress && trace_can_compress();
    writer->at = writer->raw;
    snprintf(writer->name, sizeof writer->name, "%s", name);
    if (write_header(writer, header, error) != 0) {
        trace_writer_abandon(writer);
        return NULL;
    }
    return writer;
}

static int write_frame(struct trace_writer *writer, enum trace_frame_type type, uint32_t events,
                       struct trace_error *error) {
    size_t raw_size = (size_t)(writer->at - writer->raw);
    const uint8_t *stored = writer->raw;
    size_t stored_size = 0;
    if (writer->compress)
        stored_size = trace_compress(writer->packed, sizeof writer->packed, writer->raw, raw_size);
    enum trace_encoding encoding = stored_size != 0 ? TRACE_ZSTD : TRACE_STORED;
    if (encoding == TRACE_ZSTD)
        stored = writer->packed;
    else
        stored_size = raw_size;

    uint8_t header[TRACE_FRAME_BYTES] = {0};
    trace_put_u32(header, TRACE_FRAME_MAGIC);
    header[4] = (uint8_t)type;
    header[5] = (uint8_t)encoding;
    trace_put_u32(header + 8, (uint32_t)stored_size);
    trace_put_u32(header + 12, (uint32_t)raw_size);
    trace_put_u64(header + 16, writer->frame_first);
    trace_put_u32(header + 24, events);
    uint32_t crc = trace_crc32(trace_crc32(0, header, 28), stored, stored_size);
    trace_put_u32(header + 28, crc);

    writer->at = writer->raw;
    writer->frame_first = writer->events;
    if (write_all(writer, header, sizeof header, error) != 0)
        return -1;
    return write_all(writer, stored, stored_size, error);
}

int trace_writer_flush(struct trace_writer *writer, struct trace_error *error) {
    if (writer->at == writer->raw)
        return 0;
    return write_frame(writer, TRACE_FRAME_EVENTS, (uint32_t)(writer->events - writer->frame_first),
                       error);
}

static size_t encode_stack(uint8_t *operands, const struct trace_event *event) {
    uint8_t *at = operands;
    uint64_t last = 0;
    for (uint32_t i = 0; i < event->frame_count && i < TRACE_STACK_MAX; i++) {
        at = trace_put_varint(at, trace_zigzag((int64_t)(event->frames[i] - last)));
        last = event->frames[i];
    }
    return (size_t)(at - operands);
}

static uint64_t hash_bytes(const uint8_t *bytes, size_t size) {
    uint64_t hash = 0xcbf29ce484222325u; /* FNV-1a */
    for (size_t i = 0; i < size; i++)
        hash = (hash ^ bytes[i]) * 0x100000001b3u;
    return hash ^ hash >> 32;
}

/* A stack that this frame has already is named by its number among them. */
static uint8_t *put_stack(struct trace_writer *writer, uint8_t *tag, uint8_t *to,
                          const struct trace_event *event) {
    uint8_t operands[OPERANDS_MAX];
    size_t size = encode_stack(operands, event);
    size_t at = hash_bytes(operands, size) % STACK_PLACES;
    struct writer_stack *stack;
    for (; (stack = &writer->stacks[at])->place != 0; at = (at + 1) % STACK_PLACES) {
        if (stack->size == size && memcmp(writer->raw + stack->place - 1, operands, size) == 0) {
            *tag = (uint8_t)((*tag & ~TRACE_OP_MASK) | TRACE_STACK_AGAIN);
            uint8_t *length = to++;
            to = trace_put_varint(to, stack->index);
            *length = (uint8_t)(to - length - 1);
            return to;
        }
    }
    to = trace_put_varint(to, size);
    if (writer->stack_count < TRACE_FRAME_STACKS)
        *stack = (struct writer_stack){.place = (uint32_t)(to - writer->raw) + 1,
                                       .size = (uint16_t)size,
                                       .index = (uint16_t)writer->stack_count++};
    memcpy(to, operands, size);
    return to + size;
}

static uint8_t *put_module(uint8_t *to, const struct trace_event *event) {
    uint8_t operands[OPERANDS_MAX];
    uint8_t *at = operands;
    size_t name = strnlen(event->name, TRACE_NAME_MAX);
    at = trace_put_varint(at, event->frames[0]);
    at = trace_put_varint(at, event->frames[1] - event->frames[0]);
    at = trace_put_varint(at, event->frames[2]);
    memcpy(at, event->name, name);
    size_t size = (size_t)(at - operands) + name;
    to = trace_put_varint(to, size);
    memcpy(to, operands, size);
    return to + size;
}

/* The operands of an event that older readers skip, after their length. Those of an access or a lock
 * are five numbers at most, and their length one byte. */
static uint8_t *put_skippable(struct trace_writer *writer, uint8_t *tag, uint8_t *to,
                              const struct trace_event *event) {
    if (event->op == TRACE_STACK)
        return put_stack(writer, tag, to, event);
    if (event->op == TRACE_MODULE)
        return put_module(to, event);
    uint8_t *length = to++;
    int64_t step = (int64_t)event->block - (int64_t)writer->last_used;
    to = trace_put_varint(to, trace_zigzag(step));
    writer->last_used = event->block;
    if (event->op == TRACE_ACCESS) {
        to = trace_put_varint(to, event->reads);
        to = trace_put_varint(to, event->writes);
        to = trace_put_varint(to, event->offset);
        to = trace_put_varint(to, event->size);
    }
    *length = (uint8_t)(to - length - 1);
    return to;
}

/* The operands of the first version's operations. */
static uint8_t *put_operands(struct trace_writer *writer, uint8_t *at,
                             const struct trace_event *event) {
    if (event->op == TRACE_EXEC)
        return at;
    int64_t step = (int64_t)event->block - (int64_t)writer->last_block;
    at = trace_put_varint(at, trace_zigzag(step));
    writer->last_block = event->block;
    if (event->op != TRACE_FREE)
        at = trace_put_varint(at, event->size);
    if (event->op == TRACE_ALIGNED)
        at = trace_put_varint(at, event->alignment_log2);
    return at;
}

int trace_writer_add(struct trace_writer *writer, const struct trace_event *event,
                     struct trace_error *error) {
    uint8_t *at = writer->at;
    if (at == writer->raw) {
        /* A frame begins with nothing known, so that it can be read by itself. */
        at = trace_put_varint(at, event->time_us);
        writer->last_time = event->time_us;
        writer->last_thread = 0;
        writer->last_block = 0;
        writer->last_used = 0;
        if (writer->stack_count != 0)
            memset(writer->stacks, 0, sizeof writer->stacks);
        writer->stack_count = 0;
    }
    uint8_t *tag = at++;
    *tag = (uint8_t)event->op;
    if (event->thread != writer->last_thread) {
        *tag |= TRACE_HAS_THREAD;
        at = trace_put_varint(at, event->thread);
        writer->last_thread = event->thread;
    }
    if (event->time_us > writer->last_time) {
        *tag |= TRACE_HAS_TIME;
        at = trace_put_varint(at, event->time_us - writer->last_time);
        writer->last_time = event->time_us;
    }
    writer->at = event->op >= TRACE_OP_SKIPPABLE ? put_skippable(writer, tag, at, event)
                                                 : put_operands(writer, at, event);
    writer->events++;
    if (writer->at - writer->raw >= TRACE_FRAME_RAW_TARGET)
        return trace_writer_flush(writer, error);
    return 0;
}

static int write_end(struct trace_writer *writer, struct trace_totals *totals,
                     struct trace_error *error) {
    if (trace_writer_flush(writer, error) != 0)
        return -1;
    totals->events = writer->events;
    uint64_t values[TRACE_TOTALS_COUNT];
    memcpy(values, totals, sizeof values);
    for (unsigned i = 0; i < TRACE_TOTALS_COUNT; i++) {
        writer->at = trace_put_varint(writer->at, i + 1);
        writer->at = trace_put_varint(writer->at, values[i]);
    }
    uint8_t trailer[TRACE_TRAILER_BYTES];
    trace_put_u64(trailer, writer->offset);
    memcpy(trailer + 8, TRACE_END_MAGIC, 8);
    if (write_frame(writer, TRACE_FRAME_END, 0, error) != 0)
        return -1;
    return write_all(writer, trailer, sizeof trailer, error);
}

int trace_writer_finish(struct trace_writer *writer, struct trace_totals *totals,
                        struct trace_error *error) {
    int result = write_end(writer, totals, error);
    if (close(writer->descriptor) != 0 && result == 0) {
        snprintf(error->text, sizeof error->text, "%s: cannot close: %s", writer->name,
                 strerror(errno));
        result = -1;
    }
    free(writer);
    return result;
}

void trace_writer_abandon(struct trace_writer *writer) {
    if (writer == NULL)
        return;
    close(writer->descriptor);
    free(writer);
}
