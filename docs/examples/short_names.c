/* The original spelling: the names exist only where this header is included. */
#include <jeff/short_names.h>

#include <string.h>

int main(void) {
    handle_t greeting = rmmalloc(6);
    if (greeting == NULL)
        return 1;
    memcpy(lock(greeting), "hello", 6);
    unlock(greeting);
    compact(5); /* at most 5 ms */
    int same = strcmp(lock(greeting), "hello") == 0;
    unlock(greeting);
    rmfree(greeting);
    return same ? 0 : 1;
}
