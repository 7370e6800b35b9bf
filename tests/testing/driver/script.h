/* What the four fake libraries share: a script and a log beside the library.
 *
 * The script is read anew at each question, so that a test can change the box while it is used. A line is a key, a
 * blank, and a value. Keys: gpus, driver, cuda, nvenc_major, nvenc_minor, any_version (of NVENC's callers), cuda_init,
 * hangs (seconds, in cuInit); and for each GPU, as gpu0.KEY: name, uuid, pci, memory, lost, temperature, throttle, codecs, b_frames,
 * engines, width_max, ten_bit_h264, sessions_max, sessions_open, decoders, lost_after_pictures.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void beside(const char *name, char *path, size_t room) {
    Dl_info here;
    dladdr((void *)&beside, &here);
    snprintf(path, room, "%s", here.dli_fname);
    snprintf(strrchr(path, '/') + 1, room / 2, "%s", name);
}

static int said(const char *key, char *value, size_t room) {
    char path[2048], line[512];
    beside("script", path, sizeof path);
    FILE *script = fopen(path, "r");
    size_t length = strlen(key);
    int found = 0;
    while (script && !found && fgets(line, sizeof line, script)) {
        line[strcspn(line, "\n")] = 0;
        if (!strncmp(line, key, length) && line[length] == ' ') {
            snprintf(value, room, "%s", line + length + 1);
            found = 1;
        }
    }
    if (script) fclose(script);
    return found;
}

static long number(const char *key, long otherwise) {
    char value[256];
    return said(key, value, sizeof value) ? strtol(value, NULL, 0) : otherwise;
}

static char *key_of(int gpu, const char *what) {
    static __thread char key[64];
    snprintf(key, sizeof key, "gpu%d.%s", gpu, what);
    return key;
}

static long gpu_number(int gpu, const char *what, long otherwise) { return number(key_of(gpu, what), otherwise); }

static void gpu_text(int gpu, const char *what, const char *otherwise, char *value, size_t room) {
    if (!said(key_of(gpu, what), value, room)) snprintf(value, room, "%s", otherwise);
}

__attribute__((unused)) static void logged(const char *what) {
    char path[2048];
    beside("log", path, sizeof path);
    FILE *log = fopen(path, "a");
    if (!log) return;
    fprintf(log, "%s\n", what);
    fclose(log);
}
