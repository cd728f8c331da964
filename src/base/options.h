/* The options of the default heap as the environment sets them: JEFF_LIMIT=256M, JEFF_CHECK=2,
 * JEFF_SCRAMBLE=100,42, JEFF_RETIRE=1.
 */
#ifndef JEFF_BASE_OPTIONS_H
#define JEFF_BASE_OPTIONS_H

#include <jeff/jeff.h>

#include <stdbool.h>

enum { JF_CHECK_MAX = 3 }; /* highest check level */

/* A size in bytes: decimal digits, then nothing or one of K, M, G (powers of 1024). False, and
 * nothing stored, for anything else or when it does not fit. */
bool jf_options_parse_size(const char *text, size_t *ret_size);

/* A decimal number of at most `most`. */
bool jf_options_parse_number(const char *text, uint64_t most, uint64_t *ret_number);

/* period[,seed]. Without a seed *ret_seed is left alone. */
bool jf_options_parse_scramble(const char *text, unsigned *ret_period, uint64_t *ret_seed);

/* Changes what the environment sets. A value that cannot be understood is reported in one line on
 * standard error and ignored. Nothing is changed in programs that run with more rights than their user. */
void jf_options_from_environment(struct rm_options *options);

#endif
