/* A fake libnvrtc.so: with it GStreamer registers the elements that scale on the GPU. It compiles nothing. */
#include "script.h"

int nvrtcCreateProgram(void **program) { *program = (void *)1; return 0; }
int nvrtcCompileProgram(void *program) { return 0; }
int nvrtcDestroyProgram(void **program) { return 0; }
int nvrtcGetPTX(void *program, char *text) { *text = 0; return 0; }
int nvrtcGetPTXSize(void *program, size_t *size) { *size = 1; return 0; }
int nvrtcGetProgramLog(void *program, char *text) { *text = 0; return 0; }
int nvrtcGetProgramLogSize(void *program, size_t *size) { *size = 1; return 0; }
