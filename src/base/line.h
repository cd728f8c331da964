/* One line of text, put together without stdio and without memory: for messages that must come out
 * when the heap is broken or there is no memory.
 */
#ifndef JEFF_BASE_LINE_H
#define JEFF_BASE_LINE_H

#include <stddef.h>
#include <stdint.h>

enum { JF_LINE_MAX = 320 };

/* `text` always ends with a zero byte; what does not fit is cut off. */
struct jf_line {
    char text[JF_LINE_MAX];
    size_t length;
};

void jf_line_start(struct jf_line *ret_line);

/* Each adds to the end. `text` may be NULL: nothing is added. */
void jf_line_add(struct jf_line *line, const char *text);
void jf_line_add_part(struct jf_line *line, const char *text, size_t length_max);
void jf_line_add_number(struct jf_line *line, uint64_t number); /* decimal */
void jf_line_add_address(struct jf_line *line, uintptr_t bits); /* 0x and all digits of a pointer */

#endif
