/* Parsing of the JEFF_* environment. */
#include "base/options.h"

#include "base/bits.h"
#include "base/line.h"
#include "base/os.h"

enum { VALUE_SHOWN_MAX = 40 }; /* characters of a bad value that are repeated */

/* Reads digits from *text on and moves it behind them; false without any, or above `most`. */
static bool take_digits(const char **text, uint64_t most, uint64_t *ret_number) {
    uint64_t number = 0;
    const char *at = *text;
    if (*at < '0' || *at > '9')
        return false;
    for (; *at >= '0' && *at <= '9'; at++) {
        unsigned digit = (unsigned)(*at - '0');
        if (digit > most || number > (most - digit) / 10)
            return false;
        number = number * 10 + digit;
    }
    *text = at;
    *ret_number = number;
    return true;
}

bool jf_options_parse_number(const char *text, uint64_t most, uint64_t *ret_number) {
    uint64_t number;
    if (!take_digits(&text, most, &number) || *text != '\0')
        return false;
    *ret_number = number;
    return true;
}

static unsigned suffix_shift(char suffix) {
    switch (suffix) {
    case 'K':
        return 10;
    case 'M':
        return 20;
    case 'G':
        return 30;
    default:
        return 0;
    }
}

bool jf_options_parse_size(const char *text, size_t *ret_size) {
    uint64_t number;
    if (!take_digits(&text, SIZE_MAX, &number))
        return false;
    unsigned shift = suffix_shift(*text);
    if (shift != 0)
        text++;
    if (*text != '\0' || number > (uint64_t)SIZE_MAX >> shift)
        return false;
    *ret_size = (size_t)number << shift;
    return true;
}

bool jf_options_parse_scramble(const char *text, unsigned *ret_period, uint64_t *ret_seed) {
    uint64_t period;
    uint64_t seed;
    if (!take_digits(&text, UINT32_MAX, &period))
        return false;
    if (*text == ',') {
        if (!jf_options_parse_number(text + 1, UINT64_MAX, &seed))
            return false;
        *ret_seed = seed;
    } else if (*text != '\0') {
        return false;
    }
    *ret_period = (unsigned)period;
    return true;
}

static void report(const char *name, const char *value, const char *expected) {
    struct jf_line line;
    jf_line_start(&line);
    jf_line_add(&line, "jeff: ");
    jf_line_add(&line, name);
    jf_line_add(&line, "=");
    jf_line_add_part(&line, value, VALUE_SHOWN_MAX);
    jf_line_add(&line, " is ignored: expected ");
    jf_line_add(&line, expected);
    jf_os_print_line(line.text);
}

/* So that a run that fails, in whatever way, can be done again. */
static void print_seed(const char *value, uint64_t seed) {
    struct jf_line line;
    jf_line_start(&line);
    jf_line_add(&line, "jeff: JEFF_SCRAMBLE=");
    jf_line_add(&line, value);
    jf_line_add(&line, ": seed ");
    jf_line_add_number(&line, seed);
    jf_os_print_line(line.text);
}

void jf_options_from_environment(struct rm_options *options) {
    uint64_t number;
    const char *value = jf_os_environment("JEFF_LIMIT");
    if (value != NULL && !jf_options_parse_size(value, &options->limit))
        report("JEFF_LIMIT", value, "a size in bytes such as 268435456 or 256M");
    value = jf_os_environment("JEFF_CHECK");
    if (value != NULL) {
        if (jf_options_parse_number(value, JF_CHECK_MAX, &number))
            options->check = (unsigned)number;
        else
            report("JEFF_CHECK", value, "a level from 0 to 3");
    }
    value = jf_os_environment("JEFF_SCRAMBLE");
    if (value != NULL) {
        uint64_t seed = jf_os_random();
        uint64_t drawn = seed;
        if (jf_options_parse_scramble(value, &options->scramble_period, &seed)) {
            options->scramble_seed = seed;
            if (seed == drawn && options->scramble_period != 0)
                print_seed(value, seed);
        } else
            report("JEFF_SCRAMBLE", value, "period[,seed] such as 100,42");
    }
    value = jf_os_environment("JEFF_RETIRE");
    if (value != NULL) {
        if (jf_options_parse_number(value, 1, &number))
            options->retire = (int)number;
        else
            report("JEFF_RETIRE", value, "0 or 1");
    }
}
