/* A program outside the tree: built against an installed Jeff, through pkg-config and through CMake. */
#include <jeff/jeff.h>

#include <stdio.h>
#include <string.h>

int main(void) {
    rmhandle_t greeting = rmmalloc(16);
    if (greeting == NULL)
        return 1;
    memcpy(rmlock(greeting), "moved, not lost", 16);
    rmunlock(greeting);
    rmcompact(0);
    int differs = strcmp(rmlock(greeting), "moved, not lost");
    rmunlock(greeting);
    rmfree(greeting);
    printf("jeff %s: %s\n", RM_VERSION, differs ? "lost" : "as expected");
    return differs != 0;
}
