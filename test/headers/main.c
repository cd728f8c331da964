/* The headers' own objects are compiled and linked beside this; that they can be is the test. What is
 * left to look at when it runs is that header and project agree on the version. */
#include <jeff/version.h>

#include <stdio.h>
#include <string.h>

int main(void) {
    char version[32];
    snprintf(version, sizeof version, "%d.%d.%d", RM_VERSION_MAJOR, RM_VERSION_MINOR,
             RM_VERSION_PATCH);
    return strcmp(version, RM_VERSION) != 0;
}
