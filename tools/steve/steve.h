/* What the commands of steve share. */
#ifndef STEVE_STEVE_H
#define STEVE_STEVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Exit statuses of all commands. `record` ends with the recorded program's own status, or 128 plus
 * the signal that ended it; what is said here takes precedence. */
enum steve_exit {
    STEVE_OK = 0,
    STEVE_FAILED = 1,       /* a trace is damaged, a replay went wrong, a file cannot be written */
    STEVE_USAGE = 2,        /* wrong command line */
    STEVE_RECORDER = 125,   /* record: the recording failed or is not complete */
    STEVE_CANNOT_RUN = 126, /* record: the command is there but cannot be run */
    STEVE_NOT_FOUND = 127,  /* record: there is no such command */
};

/* The commands; arguments as for main, argv[0] is the command's name. Return the exit status. */
int steve_record(int argc, char **argv);
int steve_info(int argc, char **argv);
int steve_dump(int argc, char **argv);
int steve_import(int argc, char **argv);
int steve_infer(int argc, char **argv);
int steve_digest(int argc, char **argv);
int steve_report(int argc, char **argv);
int steve_replay(int argc, char **argv);

/* Not for people: one replay in a process of its own, started by steve_replay. */
int steve_replay_worker(int argc, char **argv);
#define STEVE_WORKER_COMMAND "replay-worker"

/* Prints "steve: ..." and a newline on standard error. */
__attribute__((format(printf, 1, 2))) void steve_complain(const char *format, ...);

/* Reads a whole decimal number from `text`. -1, after a complaint that names `option`, when it is
 * none or not within [minimum, maximum]. */
int steve_parse_number(const char *option, const char *text, uint64_t minimum, uint64_t maximum,
                       uint64_t *ret_value);

/* Path of a file that belongs to steve: beside the program itself, or where it is installed. 0, or
 * -1 after a complaint when it is in neither place. */
int steve_find_file(const char *name, char *ret_path, size_t size);

bool steve_has_file(const char *name, char *ret_path, size_t size); /* without complaint */

/* Shows on a terminal how much of something long is done, 0 to 1; 1 takes the line away. */
void steve_show_progress(const char *what, double share);

/* A number of bytes for people: "17", "4.2 KiB", "1.0 GiB". Returns `ret_text`. */
enum { STEVE_BYTES_TEXT = 24 };
const char *steve_bytes_text(double bytes, char ret_text[STEVE_BYTES_TEXT]);

#endif
