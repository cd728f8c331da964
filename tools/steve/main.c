/* steve: records what real programs do with memory and replays it on other allocators. Chooses the
 * command; what commands share is here, too. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "steve.h"

#define HELP                                                                                       \
    "Usage: steve COMMAND [OPTION]... [ARGUMENT]...\n"                                             \
    "\n"                                                                                           \
    "Records what a program does with its memory, and replays that on other allocators.\n"         \
    "\n"                                                                                           \
    "  steve record -o FILE -- COMMAND [ARGUMENT]...   run COMMAND and record its allocations\n"   \
    "  steve replay [OPTION]... FILE                   do the same on Jeff and the system "        \
    "malloc\n"                                                                                     \
    "  steve infer [OPTION]... [-o FILE] TRACE         where the program would hold locks\n"       \
    "  steve import --from=FORMAT -o FILE SOURCE       a trace from what another tool recorded\n"  \
    "  steve report -o PAGE.html --trace=FILE --json=RESULTS   one HTML page of a replay\n"        \
    "  steve digest FILE                               sizes, lifetimes, locks over time, as "     \
    "JSON\n"                                                                                       \
    "  steve info FILE                                 what is in a trace\n"                       \
    "  steve dump [OPTION]... FILE                     every event of a trace as a line of text\n" \
    "  steve help [COMMAND]                            this text, or that of a command\n"          \
    "  steve --version                                 the version\n"                              \
    "\n"                                                                                           \
    "Exit status: 0 success; 1 a trace is damaged, a replay went wrong, or a file cannot be\n"     \
    "written; 2 wrong command line. record ends with the status of the program it ran, see\n"      \
    "'steve record --help'.\n"

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
} commands[] = {
    {"record", steve_record}, {"import", steve_import}, {"infer", steve_infer},
    {"digest", steve_digest}, {"report", steve_report}, {"replay", steve_replay},
    {"info", steve_info},     {"dump", steve_dump},     {STEVE_WORKER_COMMAND, steve_replay_worker},
};

void steve_complain(const char *format, ...) {
    va_list arguments;
    fflush(stdout);
    fputs("steve: ", stderr);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
}

void steve_show_progress(const char *what, double share) {
    static const char bar[] = "########################################";
    enum { WIDTH = sizeof bar - 1 };
    if (!isatty(STDERR_FILENO))
        return;
    if (share >= 1)
        fputs("\r\033[K", stderr);
    else
        fprintf(stderr, "\rsteve: %-24s [%-*.*s] %3.0f %%\033[K", what, WIDTH, (int)(share * WIDTH),
                bar, share * 100);
}

int steve_parse_number(const char *option, const char *text, uint64_t minimum, uint64_t maximum,
                       uint64_t *ret_value) {
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end != '\0' || errno != 0 || value < minimum ||
        value > maximum) {
        steve_complain("%s: '%s' is no number from %llu to %llu", option, text,
                       (unsigned long long)minimum, (unsigned long long)maximum);
        return -1;
    }
    *ret_value = value;
    return 0;
}

bool steve_has_file(const char *name, char *ret_path, size_t size) {
    char self[4096];
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    if (length > 0) {
        self[length] = '\0';
        char *slash = strrchr(self, '/');
        if (slash != NULL)
            *slash = '\0';
        if ((size_t)snprintf(ret_path, size, "%s/%s", self, name) < size &&
            access(ret_path, R_OK) == 0)
            return true;
    }
    return (size_t)snprintf(ret_path, size, "%s/%s", STEVE_INSTALL_DIR, name) < size &&
           access(ret_path, R_OK) == 0;
}

int steve_find_file(const char *name, char *ret_path, size_t size) {
    if (steve_has_file(name, ret_path, size))
        return 0;
    steve_complain("cannot find %s beside the program or in %s", name, STEVE_INSTALL_DIR);
    return -1;
}

const char *steve_bytes_text(double bytes, char ret_text[STEVE_BYTES_TEXT]) {
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
    unsigned unit = 0;
    while ((bytes >= 1024 || bytes <= -1024) && unit < 5) {
        bytes /= 1024;
        unit++;
    }
    snprintf(ret_text, STEVE_BYTES_TEXT, unit == 0 ? "%.0f %s" : "%.2f %s", bytes, units[unit]);
    return ret_text;
}

static const char *python(void) {
    const char *chosen = getenv("STEVE_PYTHON");
    return chosen != NULL ? chosen : STEVE_PYTHON;
}

int steve_report(int argc, char **argv) {
    char script[4096], self[4096];
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    char **arguments = calloc((size_t)argc + 3, sizeof *arguments);
    if (length <= 0 || arguments == NULL ||
        steve_find_file("steve-report", script, sizeof script) != 0)
        return STEVE_FAILED;
    self[length] = '\0';
    char program[sizeof script];
    snprintf(program, sizeof program, "%s", python());
    arguments[0] = program;
    arguments[1] = script;
    arguments[2] = self;
    memcpy(arguments + 3, argv + 1, (size_t)(argc - 1) * sizeof *arguments);
    execvp(program, arguments);
    steve_complain("cannot run %s: %s", program, strerror(errno));
    free(arguments);
    return STEVE_FAILED;
}

static int run_command(int argc, char **argv) {
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        if (strcmp(argv[0], commands[i].name) == 0)
            return commands[i].run(argc, argv);
    }
    steve_complain("there is no command '%s'; see 'steve --help'", argv[0]);
    return STEVE_USAGE;
}

int main(int argc, char **argv) {
    if (argc < 2) {
        fputs(HELP, stderr);
        return STEVE_USAGE;
    }
    const char *command = argv[1];
    if (strcmp(command, "--version") == 0) {
        printf("steve %s\n", STEVE_VERSION);
        return STEVE_OK;
    }
    if (strcmp(command, "--help") == 0 || strcmp(command, "-h") == 0 ||
        strcmp(command, "help") == 0) {
        if (argc > 2) {
            char help[] = "--help";
            char *arguments[] = {argv[2], help, NULL};
            return run_command(2, arguments);
        }
        fputs(HELP, stdout);
        return STEVE_OK;
    }
    return run_command(argc - 1, argv + 1);
}
