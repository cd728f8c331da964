/* Reads frames and decodes events; distrusts every byte. */
#include "trace_read.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "trace_codec.h"

struct frame_header {
    uint8_t type;
    uint8_t encoding;
    uint32_t stored_size;
    uint32_t raw_size;
    uint64_t first_event;
    uint32_t events;
    uint32_t crc;
    uint8_t bytes[TRACE_FRAME_BYTES];
};

struct trace_reader {
    int descriptor;
    bool ended;
    bool broken;
    uint64_t first_offset; /* of the first frame */
    uint64_t offset;       /* of the next byte to read from the file */
    uint64_t frame_offset; /* of the current frame */
    uint64_t frames;
    uint64_t events;     /* returned so far */
    uint32_t frame_left; /* events still to come in the frame */
    const uint8_t *at;   /* in the frame's contents */
    const uint8_t *end;
    const uint8_t *raw_start;
    uint64_t last_time;
    uint32_t last_thread;
    uint32_t last_block;
    uint32_t last_used; /* block of the last access, lock or unlock */
    uint64_t frames_read[TRACE_STACK_MAX];
    char name_read[TRACE_NAME_MAX + 1];
    uint32_t stack_count; /* of this frame so far */
    /* Where the operands of its first ones are in its contents. */
    struct reader_stack {
        uint32_t place, size;
    } stacks[TRACE_FRAME_STACKS];
    struct trace_header header;
    char *name;
    uint8_t *stored; /* two buffers of TRACE_FRAME_RAW_MAX bytes, touched as frames need them */
    uint8_t *raw;
};

__attribute__((format(printf, 4, 5))) static int fail(struct trace_reader *reader, uint64_t offset,
                                                      struct trace_error *error, const char *format,
                                                      ...) {
    char what[256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);
    snprintf(error->text, sizeof error->text, "%.200s: offset %llu: %s", reader->name,
             (unsigned long long)offset, what);
    reader->broken = true;
    return -1;
}

/* An error inside a frame's contents, which may be compressed: both places are named. */
static int fail_inside(struct trace_reader *reader, struct trace_error *error, const uint8_t *place,
                       const char *what) {
    return fail(reader, reader->frame_offset, error,
                "byte %zu of this frame's contents, event %llu: %s",
                (size_t)(place - reader->raw_start), (unsigned long long)reader->events, what);
}

/* Bytes read, fewer than `size` only at the end of the file; -1 on a read error. */
static ssize_t read_some(int descriptor, void *to, size_t size) {
    size_t done = 0;
    while (done < size) {
        ssize_t got = read(descriptor, (uint8_t *)to + done, size - done);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -1;
        if (got == 0)
            break;
        done += (size_t)got;
    }
    return (ssize_t)done;
}

/* Exactly `size` bytes from the stream, or an error that says what was being read. */
static int read_exactly(struct trace_reader *reader, void *to, size_t size, const char *what,
                        struct trace_error *error) {
    ssize_t got = read_some(reader->descriptor, to, size);
    if (got < 0)
        return fail(reader, reader->offset, error, "cannot read: %s", strerror(errno));
    if ((size_t)got < size)
        return fail(reader, reader->offset, error,
                    "the file ends inside %s: %zd of %zu bytes (cut off?)", what, got, size);
    reader->offset += size;
    return 0;
}

static int read_header(struct trace_reader *reader, struct trace_error *error) {
    uint8_t fixed[TRACE_HEADER_BYTES];
    if (read_exactly(reader, fixed, sizeof fixed, "the header", error) != 0)
        return -1;
    struct trace_header *header = &reader->header;
    if (memcmp(fixed, TRACE_MAGIC, 8) != 0)
        return fail(reader, 0, error, "this is no trace of steve record (wrong magic)");
    header->version_major = trace_get_u16(fixed + 8);
    header->version_minor = trace_get_u16(fixed + 10);
    if (header->version_major != TRACE_VERSION_MAJOR)
        return fail(reader, 8, error, "format version %u.%u; this steve reads %u.x",
                    header->version_major, header->version_minor, TRACE_VERSION_MAJOR);
    header->flags = trace_get_u32(fixed + 16);
    header->pid = trace_get_u32(fixed + 20);
    header->start_unix_us = trace_get_u64(fixed + 24);
    header->page_size = trace_get_u32(fixed + 32);
    header->command_bytes = trace_get_u32(fixed + 36);
    if (header->command_bytes > TRACE_COMMAND_MAX ||
        trace_get_u32(fixed + 12) != TRACE_HEADER_BYTES + header->command_bytes + 4)
        return fail(reader, 12, error, "the header's length makes no sense");
    header->command = calloc(1, (size_t)header->command_bytes + 1);
    if (header->command == NULL)
        return fail(reader, 36, error, "out of memory");
    uint8_t crc[4];
    if (read_exactly(reader, header->command, header->command_bytes, "the header", error) != 0 ||
        read_exactly(reader, crc, sizeof crc, "the header", error) != 0)
        return -1;
    uint32_t expected = trace_crc32(0, fixed, sizeof fixed);
    expected = trace_crc32(expected, header->command, header->command_bytes);
    if (expected != trace_get_u32(crc))
        return fail(reader, 0, error, "the header is damaged (checksum)");
    reader->first_offset = reader->offset;
    return 0;
}

static void *map_buffer(size_t size) {
    void *buffer = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return buffer == MAP_FAILED ? NULL : buffer;
}

static int open_file(struct trace_reader *reader, const char *path, struct trace_error *error) {
    reader->descriptor = open(path, O_RDONLY | O_CLOEXEC);
    if (reader->descriptor < 0) {
        snprintf(error->text, sizeof error->text, "cannot open %.200s: %s", path, strerror(errno));
        return -1;
    }
    reader->name = strdup(path);
    reader->stored = map_buffer(TRACE_FRAME_RAW_MAX);
    reader->raw = map_buffer(TRACE_FRAME_RAW_MAX);
    if (reader->name == NULL || reader->stored == NULL || reader->raw == NULL) {
        snprintf(error->text, sizeof error->text, "%.200s: out of memory", path);
        return -1;
    }
    return read_header(reader, error);
}

struct trace_reader *trace_reader_open(const char *path, struct trace_error *error) {
    struct trace_reader *reader = calloc(1, sizeof *reader);
    if (reader == NULL) {
        snprintf(error->text, sizeof error->text, "%.200s: out of memory", path);
        return NULL;
    }
    reader->descriptor = -1;
    if (open_file(reader, path, error) != 0) {
        trace_reader_close(reader);
        return NULL;
    }
    return reader;
}

void trace_reader_touch(struct trace_reader *reader) {
    memset(reader->stored, 1, 2 * TRACE_FRAME_RAW_TARGET);
    memset(reader->raw, 1, 2 * TRACE_FRAME_RAW_TARGET);
    memset(reader->stacks, 1, sizeof reader->stacks);
}

void trace_reader_close(struct trace_reader *reader) {
    if (reader == NULL)
        return;
    if (reader->descriptor >= 0)
        close(reader->descriptor);
    if (reader->stored != NULL)
        munmap(reader->stored, TRACE_FRAME_RAW_MAX);
    if (reader->raw != NULL)
        munmap(reader->raw, TRACE_FRAME_RAW_MAX);
    free(reader->header.command);
    free(reader->name);
    free(reader);
}

const struct trace_header *trace_reader_header(const struct trace_reader *reader) {
    return &reader->header;
}

/* Checks a frame header read from `offset`. */
static int parse_frame_header(struct trace_reader *reader, struct frame_header *frame,
                              uint64_t offset, struct trace_error *error) {
    const uint8_t *bytes = frame->bytes;
    if (trace_get_u32(bytes) != TRACE_FRAME_MAGIC)
        return fail(reader, offset, error, "no frame begins here (damaged, or not a trace)");
    frame->type = bytes[4];
    frame->encoding = bytes[5];
    frame->stored_size = trace_get_u32(bytes + 8);
    frame->raw_size = trace_get_u32(bytes + 12);
    frame->first_event = trace_get_u64(bytes + 16);
    frame->events = trace_get_u32(bytes + 24);
    frame->crc = trace_get_u32(bytes + 28);
    if (frame->stored_size > TRACE_FRAME_RAW_MAX || frame->raw_size > TRACE_FRAME_RAW_MAX)
        return fail(reader, offset, error, "a frame of %u bytes (%u unpacked) is too large",
                    frame->stored_size, frame->raw_size);
    if (trace_get_u16(bytes + 6) != 0 || frame->encoding > TRACE_ZSTD ||
        (frame->encoding == TRACE_STORED && frame->stored_size != frame->raw_size))
        return fail(reader, offset, error, "the frame's header makes no sense");
    return 0;
}

/* Checks and unpacks a frame whose stored bytes are in reader->stored; sets `ret_raw`. */
static int unpack_frame(struct trace_reader *reader, const struct frame_header *frame,
                        uint64_t offset, const uint8_t **ret_raw, struct trace_error *error) {
    uint32_t crc = trace_crc32(0, frame->bytes, 28);
    if (trace_crc32(crc, reader->stored, frame->stored_size) != frame->crc)
        return fail(reader, offset, error, "the frame is damaged (checksum)");
    *ret_raw = reader->stored;
    if (frame->encoding == TRACE_STORED)
        return 0;
    if (!trace_can_compress())
        return fail(reader, offset, error,
                    "the frame is compressed with zstd, and this steve was built without it");
    if (!trace_decompress(reader->raw, frame->raw_size, reader->stored, frame->stored_size))
        return fail(reader, offset, error, "the frame cannot be unpacked");
    *ret_raw = reader->raw;
    return 0;
}

/* The stream's end: the trailer must follow and nothing else. */
static int read_trailer(struct trace_reader *reader, struct trace_error *error) {
    uint8_t trailer[TRACE_TRAILER_BYTES];
    uint64_t offset = reader->offset;
    if (read_exactly(reader, trailer, sizeof trailer, "the trailer", error) != 0)
        return -1;
    if (trace_get_u64(trailer) != reader->frame_offset ||
        memcmp(trailer + 8, TRACE_END_MAGIC, 8) != 0)
        return fail(reader, offset, error, "the trailer is damaged");
    uint8_t more;
    if (read_some(reader->descriptor, &more, 1) != 0)
        return fail(reader, reader->offset, error, "there is something after the trailer");
    reader->ended = true;
    return 0;
}

/* Starts on the events of an unpacked frame. */
static int begin_events(struct trace_reader *reader, const struct frame_header *frame,
                        struct trace_error *error) {
    if (frame->first_event != reader->events)
        return fail(reader, reader->frame_offset, error,
                    "the frame begins with event %llu, but %llu comes next (a frame is missing?)",
                    (unsigned long long)frame->first_event, (unsigned long long)reader->events);
    uint64_t time;
    const uint8_t *at = trace_get_varint(reader->at, reader->end, &time);
    if (at == NULL)
        return fail_inside(reader, error, reader->at, "the time is damaged");
    if (time < reader->last_time)
        return fail_inside(reader, error, reader->at, "time goes backwards");
    reader->at = at;
    reader->last_time = time;
    reader->last_thread = 0;
    reader->last_block = 0;
    reader->last_used = 0;
    reader->stack_count = 0;
    reader->frame_left = frame->events;
    return 0;
}

/* Reads the next frame. Sets frame_left, or ended. */
static int next_frame(struct trace_reader *reader, struct trace_error *error) {
    struct frame_header frame;
    uint64_t offset = reader->offset;
    ssize_t got = read_some(reader->descriptor, frame.bytes, sizeof frame.bytes);
    if (got == 0)
        return fail(reader, offset, error,
                    "the file ends without an end frame (cut off, or the recorder was killed)");
    if (got < 0)
        return fail(reader, offset, error, "cannot read: %s", strerror(errno));
    if ((size_t)got < sizeof frame.bytes)
        return fail(reader, offset, error, "the file ends inside a frame's header (cut off?)");
    reader->offset += sizeof frame.bytes;
    reader->frame_offset = offset;
    if (parse_frame_header(reader, &frame, offset, error) != 0 ||
        read_exactly(reader, reader->stored, frame.stored_size, "a frame", error) != 0 ||
        unpack_frame(reader, &frame, offset, &reader->at, error) != 0)
        return -1;
    reader->frames++;
    reader->raw_start = reader->at;
    reader->end = reader->at + frame.raw_size;
    if (frame.type == TRACE_FRAME_EVENTS)
        return begin_events(reader, &frame, error);
    if (frame.type == TRACE_FRAME_END)
        return read_trailer(reader, error);
    if (frame.type & TRACE_FRAME_SKIPPABLE)
        return 0;
    return fail(reader, offset, error, "frames of type %u are not known", frame.type);
}

/* One number before `end`; NULL is passed on, so that a chain of calls needs one check. */
static inline const uint8_t *get_number_before(const uint8_t *end, const uint8_t *at,
                                               uint64_t limit, uint64_t *ret_value) {
    if (at == NULL)
        return NULL;
    if (at < end && *at < 0x80) {
        *ret_value = *at;
        return *ret_value < limit ? at + 1 : NULL;
    }
    /* Two bytes are common, too. */
    if (end - at > 1 && (uint8_t)(at[1] - 1) < 0x7f) {
        *ret_value = (uint64_t)(at[0] & 0x7f) | (uint64_t)at[1] << 7;
        return *ret_value < limit ? at + 2 : NULL;
    }
    at = trace_get_varint(at, end, ret_value);
    return at != NULL && *ret_value < limit ? at : NULL;
}

static const uint8_t *get_number(struct trace_reader *reader, const uint8_t *at, uint64_t limit,
                                 uint64_t *ret_value) {
    return get_number_before(reader->end, at, limit, ret_value);
}

/* A block as its difference to `*last`, which it becomes. */
static const uint8_t *get_block_before(const uint8_t *end, const uint8_t *at, uint32_t *last,
                                       uint32_t *ret_block) {
    uint64_t step;
    at = get_number_before(end, at, (uint64_t)1 << 34, &step);
    if (at == NULL)
        return NULL;
    int64_t block = (int64_t)*last + trace_unzigzag(step);
    if (block < 0 || block >= (int64_t)TRACE_BLOCK_MAX)
        return NULL;
    *ret_block = *last = (uint32_t)block;
    return at;
}

static const uint8_t *get_block(struct trace_reader *reader, const uint8_t *at,
                                uint32_t *ret_block) {
    return get_block_before(reader->end, at, &reader->last_block, ret_block);
}

/* The operands that belong to the operation. */
static const uint8_t *get_operands(struct trace_reader *reader, const uint8_t *at,
                                   struct trace_event *event) {
    uint64_t log2 = 0;
    switch (event->op) {
    case TRACE_MALLOC:
    case TRACE_CALLOC:
    case TRACE_REALLOC:
        at = get_block(reader, at, &event->block);
        return get_number(reader, at, TRACE_SIZE_MAX, &event->size);
    case TRACE_ALIGNED:
        at = get_block(reader, at, &event->block);
        at = get_number(reader, at, TRACE_SIZE_MAX, &event->size);
        at = get_number(reader, at, TRACE_ALIGNMENT_LOG2_MAX + 1, &log2);
        event->alignment_log2 = (uint32_t)log2;
        return at;
    case TRACE_FREE:
        return get_block(reader, at, &event->block);
    case TRACE_EXEC:
        return at;
    default:
        return NULL;
    }
}

static const uint8_t *decode_stack(struct trace_reader *reader, const uint8_t *at,
                                   const uint8_t *end, struct trace_event *event) {
    uint64_t last = 0;
    event->op = TRACE_STACK;
    while (at != end) {
        uint64_t step;
        at = get_number_before(end, at, UINT64_MAX, &step);
        if (at == NULL || event->frame_count == TRACE_STACK_MAX)
            return NULL;
        last += (uint64_t)trace_unzigzag(step);
        reader->frames_read[event->frame_count++] = last;
    }
    event->frames = reader->frames_read;
    return at;
}

static const uint8_t *get_stack(struct trace_reader *reader, const uint8_t *at, const uint8_t *end,
                                struct trace_event *event) {
    if (reader->stack_count < TRACE_FRAME_STACKS)
        reader->stacks[reader->stack_count++] = (struct reader_stack){
            .place = (uint32_t)(at - reader->raw_start), .size = (uint32_t)(end - at)};
    return decode_stack(reader, at, end, event);
}

/* A stack that this frame had before. */
static const uint8_t *get_stack_again(struct trace_reader *reader, const uint8_t *at,
                                      const uint8_t *end, struct trace_event *event) {
    uint64_t index;
    at = get_number_before(end, at, reader->stack_count, &index);
    if (at == NULL)
        return NULL;
    const uint8_t *operands = reader->raw_start + reader->stacks[index].place;
    at = decode_stack(reader, operands, operands + reader->stacks[index].size, event);
    return at != NULL ? end : NULL;
}

static const uint8_t *get_module(struct trace_reader *reader, const uint8_t *at, const uint8_t *end,
                                 struct trace_event *event) {
    uint64_t *numbers = reader->frames_read;
    at = get_number_before(end, at, UINT64_MAX, &numbers[0]);
    at = get_number_before(end, at, UINT64_MAX - numbers[0], &numbers[1]);
    at = get_number_before(end, at, UINT64_MAX, &numbers[2]);
    if (at == NULL || (size_t)(end - at) > TRACE_NAME_MAX)
        return NULL;
    numbers[1] += numbers[0];
    memcpy(reader->name_read, at, (size_t)(end - at));
    reader->name_read[end - at] = '\0';
    event->frames = numbers;
    event->frame_count = 3;
    event->name = reader->name_read;
    return end;
}

/* An event that came with or after version 1.1: its length stands first. What a later version adds
 * to the operands of one known here is passed over, as an unknown operation is as a whole; `*ret_skip`
 * is set for the latter. */
static const uint8_t *get_skippable(struct trace_reader *reader, const uint8_t *at,
                                    struct trace_event *event, bool *ret_skip) {
    uint64_t length;
    at = get_number(reader, at, TRACE_FRAME_RAW_MAX, &length);
    if (at == NULL || length > (uint64_t)(reader->end - at))
        return NULL;
    const uint8_t *end = at + length;
    switch (event->op) {
    case TRACE_STACK:
        return get_stack(reader, at, end, event);
    case TRACE_STACK_AGAIN:
        return get_stack_again(reader, at, end, event);
    case TRACE_MODULE:
        return get_module(reader, at, end, event);
    case TRACE_ACCESS:
    case TRACE_LOCK:
    case TRACE_UNLOCK:
        at = get_block_before(end, at, &reader->last_used, &event->block);
        break;
    default:
        *ret_skip = true;
        return end;
    }
    if (event->op == TRACE_ACCESS) {
        at = get_number_before(end, at, TRACE_COUNT_MAX, &event->reads);
        at = get_number_before(end, at, TRACE_COUNT_MAX, &event->writes);
        at = get_number_before(end, at, TRACE_SIZE_MAX, &event->offset);
        at = get_number_before(end, at, TRACE_SIZE_MAX, &event->size);
    }
    return at != NULL ? end : NULL;
}

/* Decodes one event: 1, or 0 when it was one to be skipped, or -1. */
/* Field by field: compilers clear a structure of this size with a string instruction, which takes
 * longer than all the rest of an event. */
static void begin_event(const struct trace_reader *reader, struct trace_event *event,
                        enum trace_op op) {
    event->number = reader->events;
    event->op = op;
    event->thread = reader->last_thread;
    event->time_us = reader->last_time;
    event->block = event->alignment_log2 = event->frame_count = 0;
    event->size = event->offset = event->reads = event->writes = 0;
    event->frames = NULL;
    event->name = NULL;
    event->old_size = event->locks = event->serial = 0;
}

static int decode_event(struct trace_reader *reader, struct trace_event *event,
                        struct trace_error *error) {
    const uint8_t *start = reader->at;
    if (start == reader->end)
        return fail_inside(reader, error, start, "the frame ends before its last event");
    uint8_t tag = *start;
    const uint8_t *at = start + 1;
    uint64_t value = 0;
    if (tag & TRACE_HAS_THREAD) {
        at = get_number(reader, at, UINT32_MAX, &value);
        reader->last_thread = (uint32_t)value;
    }
    if (tag & TRACE_HAS_TIME) {
        at = get_number(reader, at, (uint64_t)1 << 56, &value);
        if (at != NULL && __builtin_add_overflow(reader->last_time, value, &reader->last_time))
            at = NULL;
    }
    unsigned op = tag & TRACE_OP_MASK;
    bool skip = false;
    begin_event(reader, event, (enum trace_op)op);
    at = op >= TRACE_OP_SKIPPABLE ? get_skippable(reader, at, event, &skip)
                                  : get_operands(reader, at, event);
    if (at == NULL)
        return fail_inside(reader, error, start, "the event is damaged");
    reader->at = at;
    reader->frame_left--;
    reader->events++;
    if (reader->frame_left == 0 && reader->at != reader->end)
        return fail_inside(reader, error, at, "there is something after the frame's last event");
    return !skip;
}

int trace_reader_next(struct trace_reader *reader, struct trace_event *ret_event,
                      struct trace_error *error) {
    if (reader->broken) {
        snprintf(error->text, sizeof error->text, "%.200s: not readable any further", reader->name);
        return -1;
    }
    for (;;) {
        while (reader->frame_left == 0) {
            if (reader->ended)
                return 0;
            if (next_frame(reader, error) != 0)
                return -1;
        }
        int result = decode_event(reader, ret_event, error);
        if (result != 0)
            return result;
    }
}

/* Reads the header of the frame at `offset`; 0, 1 when it is one of events, or -1. */
static int look_at_frame(struct trace_reader *reader, uint64_t offset, struct frame_header *frame,
                         struct trace_error *error) {
    ssize_t got = pread(reader->descriptor, frame->bytes, sizeof frame->bytes, (off_t)offset);
    if (got < 0)
        return fail(reader, offset, error, "the file cannot be read in any order: %s",
                    strerror(errno));
    if (got < (ssize_t)sizeof frame->bytes)
        return fail(reader, offset, error, "the file ends before the event looked for");
    if (parse_frame_header(reader, frame, offset, error) != 0)
        return -1;
    return frame->type == TRACE_FRAME_EVENTS;
}

int trace_reader_rewind(struct trace_reader *reader, struct trace_error *error) {
    if (lseek(reader->descriptor, (off_t)reader->first_offset, SEEK_SET) < 0)
        return fail(reader, reader->first_offset, error, "cannot go there: %s", strerror(errno));
    reader->offset = reader->first_offset;
    reader->frames = reader->events = 0;
    reader->frame_left = 0;
    reader->last_time = 0;
    reader->at = reader->end = NULL;
    reader->ended = reader->broken = false;
    return 0;
}

int trace_reader_seek(struct trace_reader *reader, uint64_t event, struct trace_error *error) {
    struct frame_header frame;
    uint64_t offset = reader->offset;
    if (reader->broken || reader->frames != 0)
        return fail(reader, offset, error, "an event is to be looked for before any is read");
    for (;;) {
        int result = look_at_frame(reader, offset, &frame, error);
        if (result < 0)
            return -1;
        if (frame.type == TRACE_FRAME_END ||
            (result == 1 && event - frame.first_event < frame.events))
            break;
        offset += sizeof frame.bytes + frame.stored_size;
    }
    if (lseek(reader->descriptor, (off_t)offset, SEEK_SET) < 0)
        return fail(reader, offset, error, "cannot go there: %s", strerror(errno));
    reader->offset = offset;
    reader->events = frame.first_event;
    struct trace_event skipped;
    while (reader->events < event) {
        int result = trace_reader_next(reader, &skipped, error);
        if (result != 1)
            return result;
    }
    return 0;
}

/* Reads the end frame at `offset` of the file. */
static int read_end_frame(struct trace_reader *reader, uint64_t offset, uint64_t limit,
                          struct trace_totals *totals, struct trace_error *error) {
    struct frame_header frame;
    if (pread(reader->descriptor, frame.bytes, sizeof frame.bytes, (off_t)offset) !=
            (ssize_t)sizeof frame.bytes ||
        parse_frame_header(reader, &frame, offset, error) != 0)
        return fail(reader, offset, error, "the end frame's header is damaged");
    if (frame.type != TRACE_FRAME_END || offset + sizeof frame.bytes + frame.stored_size != limit)
        return fail(reader, offset, error, "the trailer does not name the end frame");
    if (pread(reader->descriptor, reader->stored, frame.stored_size,
              (off_t)(offset + sizeof frame.bytes)) != (ssize_t)frame.stored_size)
        return fail(reader, offset, error, "cannot read the end frame");
    const uint8_t *at;
    if (unpack_frame(reader, &frame, offset, &at, error) != 0)
        return -1;
    uint64_t values[TRACE_TOTALS_COUNT] = {0};
    for (const uint8_t *end = at + frame.raw_size; at < end;) {
        uint64_t tag, value = 0;
        at = trace_get_varint(at, end, &tag);
        if (at != NULL)
            at = trace_get_varint(at, end, &value);
        if (at == NULL)
            return fail(reader, offset, error, "the end frame is damaged");
        if (tag >= 1 && tag <= TRACE_TOTALS_COUNT)
            values[tag - 1] = value;
    }
    memcpy(totals, values, sizeof values);
    return 0;
}

int trace_reader_totals(struct trace_reader *reader, struct trace_totals *ret_totals,
                        struct trace_error *error) {
    uint8_t trailer[TRACE_TRAILER_BYTES];
    bool was_broken = reader->broken;
    memset(ret_totals, 0, sizeof *ret_totals);
    int result;
    if (reader->frames != 0) {
        result = fail(reader, reader->offset, error, "the totals are to be read before the events");
        reader->broken = was_broken;
        return result;
    }
    off_t size = lseek(reader->descriptor, 0, SEEK_END);
    if (size < 0 || lseek(reader->descriptor, (off_t)reader->offset, SEEK_SET) < 0)
        result = fail(reader, reader->offset, error, "the file cannot be read in any order: %s",
                      strerror(errno));
    else if (size < (off_t)(reader->offset + sizeof trailer) ||
             pread(reader->descriptor, trailer, sizeof trailer, size - (off_t)sizeof trailer) !=
                 (ssize_t)sizeof trailer ||
             memcmp(trailer + 8, TRACE_END_MAGIC, 8) != 0)
        result = fail(reader, (uint64_t)size, error,
                      "the file ends without an end frame (cut off, or the recorder was killed)");
    else {
        uint64_t limit = (uint64_t)size - sizeof trailer;
        uint64_t offset = trace_get_u64(trailer);
        if (offset < reader->offset || offset > limit)
            result = fail(reader, limit, error, "the trailer is damaged");
        else
            result = read_end_frame(reader, offset, limit, ret_totals, error);
    }
    reader->broken = was_broken;
    return result;
}

void trace_reader_where(const struct trace_reader *reader, char *ret_text, size_t size) {
    snprintf(ret_text, size, "%.200s: event %llu (frame at offset %llu)", reader->name,
             (unsigned long long)(reader->events - 1), (unsigned long long)reader->frame_offset);
}

void trace_reader_progress(const struct trace_reader *reader, uint64_t *ret_frames,
                           uint64_t *ret_bytes) {
    *ret_frames = reader->frames;
    *ret_bytes = reader->offset;
}

double trace_reader_share(const struct trace_reader *reader) {
    struct stat status;
    if (fstat(reader->descriptor, &status) != 0 || status.st_size <= 0)
        return 0;
    double share = (double)reader->offset / (double)status.st_size;
    return share < 1 ? share : 1;
}
