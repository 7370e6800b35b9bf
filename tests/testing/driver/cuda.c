/* A fake libcuda.so.1. A context's handle tells its device; a device's memory is this machine's. */
#include "script.h"

enum { OK = 0, OUT_OF_MEMORY = 2, NO_DEVICE = 100, INVALID_CONTEXT = 201, UNKNOWN = 999 };
typedef struct {
    size_t src_x, src_y; int src_kind; const void *src_host; unsigned long long src_device; void *src_array; size_t src_pitch;
    size_t dst_x, dst_y; int dst_kind; void *dst_host; unsigned long long dst_device; void *dst_array; size_t dst_pitch;
    size_t width, height;
} Copy;

static __thread void *stack[16];
static __thread int depth;

static int lost(int device) { return gpu_number(device, "lost", 0) != 0; }
static int device_of(void *context) { return (int)((intptr_t)context / 0x1000) - 1; }

/* CUDA_VISIBLE_DEVICES names one device by its UUID, or hides all; unset, all are there. */
static int visible(void) {
    const char *uuid = getenv("CUDA_VISIBLE_DEVICES");
    return !uuid ? -1 : strncmp(uuid, "GPU-", 4) ? -2 : (int)strtol((char[]){ uuid[4], uuid[5], 0 }, NULL, 16);
}
static long shown(void) { return visible() == -1 ? number("cuda_gpus", number("gpus", 0)) : visible() != -2; }
int cuInit(unsigned flags) { sleep(number("hangs", 0)); return number("cuda_init", shown() ? OK : NO_DEVICE); }
int cuDriverGetVersion(int *version) { *version = number("cuda", 12040); return OK; }
int cuDeviceGetCount(int *count) { *count = shown(); return OK; }
/* A device's handle is its number among the visible ones. */
static int real(int device) { return visible() < 0 ? device : visible(); }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return OK; }
int cuDeviceGetName(char *name, int room, int device) { gpu_text(real(device), "name", "NVIDIA Fake", name, room); return OK; }
int cuDeviceGetUuid(unsigned char *uuid, int device) { memset(uuid, 0, 16); memset(uuid, real(device), 4); return OK; }
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = gpu_number(real(device), "memory", 24L << 30); return OK; }
int cuDeviceGetAttribute(int *value, int attribute, int device) { *value = attribute == 75 ? 8 : attribute == 76 ? 9 : 0; return OK; }
int cuDeviceGetPCIBusId(char *text, int room, int device) { snprintf(text, room, "0000:%02x:00.0", 0xa0 + real(device)); return OK; }
int cuDevicePrimaryCtxRetain(void **context, int device) {
    if (lost(real(device))) return UNKNOWN;
    *context = (void *)(intptr_t)((real(device) + 1) * 0x1000);
    logged("retain context");
    return OK;
}
int cuDevicePrimaryCtxRelease_v2(int device) { logged("release context"); return OK; }
int cuCtxPushCurrent_v2(void *context) { stack[depth++] = context; return OK; }
int cuCtxPopCurrent_v2(void **context) {
    if (!depth) return INVALID_CONTEXT;
    depth--;
    if (context) *context = stack[depth];
    return OK;
}
int cuMemAllocPitch_v2(unsigned long long *address, size_t *pitch, size_t width, size_t height, unsigned element) {
    if (!depth) return INVALID_CONTEXT;
    if (lost(device_of(stack[depth - 1]))) return UNKNOWN;
    *pitch = (width + 511) / 512 * 512;
    if ((long)(*pitch * height) > gpu_number(device_of(stack[depth - 1]), "memory", 24L << 30)) return OUT_OF_MEMORY;
    *address = (unsigned long long)(uintptr_t)calloc(*pitch, height);
    return OK;
}
int cuMemFree_v2(unsigned long long address) { logged("free memory"); free((void *)(uintptr_t)address); return OK; }
int cuMemcpy2D_v2(const Copy *copy) {
    if (!depth) return INVALID_CONTEXT;
    if (copy->src_kind == 2 && copy->dst_kind == 1) {
        for (size_t row = 0; row < copy->height; row++)
            memcpy((char *)copy->dst_host + row * copy->dst_pitch, (const char *)(uintptr_t)copy->src_device + row * copy->src_pitch, copy->width);
        return OK;
    }
    if (copy->src_kind != 1 || copy->dst_kind != 2) return UNKNOWN;
    for (size_t row = 0; row < copy->height; row++)
        memcpy((char *)(uintptr_t)copy->dst_device + row * copy->dst_pitch, (const char *)copy->src_host + row * copy->src_pitch, copy->width);
    return OK;
}
int cuGetErrorName(int code, const char **text) {
    *text = code == OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY" : code == NO_DEVICE ? "CUDA_ERROR_NO_DEVICE" : code == UNKNOWN ? "CUDA_ERROR_UNKNOWN" : NULL;
    return *text ? OK : 1;
}
int cuGetErrorString(int code, const char **text) {
    *text = code == NO_DEVICE ? "no CUDA-capable device is detected" : code == UNKNOWN ? "unknown error" : NULL;
    return *text ? OK : 1;
}

/* What GStreamer's plug-in looks up before it registers any element. It may open the device, and use nothing of it. */
int cuCtxCreate_v2(void **context, unsigned flags, int device) {
    int result = cuDevicePrimaryCtxRetain(context, device);
    if (result == OK) stack[depth++] = *context;
    return result;
}
int cuCtxDestroy_v2(void *context) { return OK; }
int cuDeviceCanAccessPeer(int *can, int device, int other) { *can = 0; return OK; }
int cuStreamCreate(void **stream, unsigned flags) { *stream = (void *)1; return OK; }
int cuStreamDestroy_v2(void *stream) { return OK; }
int cuStreamDestroy(void *stream) { return OK; }
int cuStreamSynchronize(void *stream) { return OK; }
#define REFUSED(name) int name() { return UNKNOWN; }
REFUSED(cuMemAlloc_v2) REFUSED(cuMemAllocHost_v2) REFUSED(cuMemFreeHost) REFUSED(cuMemcpy2DAsync_v2)
REFUSED(cuCtxEnablePeerAccess) REFUSED(cuCtxDisablePeerAccess) REFUSED(cuGraphicsMapResources)
REFUSED(cuGraphicsUnmapResources) REFUSED(cuGraphicsUnregisterResource) REFUSED(cuModuleLoadData) REFUSED(cuModuleUnload)
REFUSED(cuModuleGetFunction) REFUSED(cuTexObjectCreate) REFUSED(cuTexObjectDestroy) REFUSED(cuLaunchKernel)
REFUSED(cuGraphicsGLRegisterImage) REFUSED(cuGraphicsGLRegisterBuffer) REFUSED(cuGLGetDevices_v2)
REFUSED(cuGraphicsResourceSetMapFlags_v2) REFUSED(cuGraphicsSubResourceGetMappedArray)
REFUSED(cuGraphicsResourceGetMappedPointer_v2)
