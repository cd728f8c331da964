/* A line of text in a buffer of fixed size. */
#include "base/line.h"

enum { DIGITS_MAX = 20 }; /* of UINT64_MAX in decimal */

void jf_line_start(struct jf_line *ret_line) {
    ret_line->length = 0;
    ret_line->text[0] = '\0';
}

static void add_character(struct jf_line *line, char character) {
    if (line->length + 1 >= JF_LINE_MAX)
        return;
    line->text[line->length++] = character;
    line->text[line->length] = '\0';
}

void jf_line_add(struct jf_line *line, const char *text) {
    jf_line_add_part(line, text, SIZE_MAX);
}

void jf_line_add_part(struct jf_line *line, const char *text, size_t length_max) {
    if (text == NULL)
        return;
    for (size_t i = 0; i < length_max && text[i] != '\0'; i++)
        add_character(line, text[i]);
}

void jf_line_add_number(struct jf_line *line, uint64_t number) {
    char digits[DIGITS_MAX];
    unsigned count = 0;
    do {
        digits[count++] = (char)('0' + number % 10);
        number /= 10;
    } while (number != 0);
    while (count > 0)
        add_character(line, digits[--count]);
}

void jf_line_add_address(struct jf_line *line, uintptr_t bits) {
    jf_line_add(line, "0x");
    for (unsigned shift = sizeof bits * 8; shift > 0; shift -= 4)
        add_character(line, "0123456789abcdef"[bits >> (shift - 4) & 15]);
}
