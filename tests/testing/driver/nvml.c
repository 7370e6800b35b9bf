/* A fake libnvidia-ml.so.1. Layouts are those of nvml.h. */
#include "script.h"

enum { OK = 0, INVALID = 2, UNSUPPORTED = 3, NOT_FOUND = 6, NOT_LOADED = 9, LOST = 15 };
typedef void *Device;
typedef struct { char legacy[16]; unsigned domain, bus, device, id, sub; char bus_id[32]; } Pci;
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } Memory;
typedef struct { unsigned gpu, memory; } Load;

static int gpu_of(Device device) { return (int)(intptr_t)device - 1; }
#define ALIVE(device) if (gpu_number(gpu_of(device), "lost", 0)) return LOST

int nvmlInit_v2(void) { return number("nvml_init", OK); }
int nvmlShutdown(void) { return OK; }
int nvmlSystemGetDriverVersion(char *text, unsigned room) {
    if (!said("driver", text, room)) snprintf(text, room, "550.54.14");
    return OK;
}
int nvmlDeviceGetCount_v2(unsigned *count) { *count = number("gpus", 0); return OK; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, Device *device) {
    *device = (Device)(intptr_t)(index + 1);
    return OK;
}
static void uuid_of(int gpu, char *text, unsigned room) {
    char otherwise[64];
    snprintf(otherwise, sizeof otherwise, "GPU-%02x%02x%02x%02x-0000-0000-0000-000000000000", gpu, gpu, gpu, gpu);
    gpu_text(gpu, "uuid", otherwise, text, room);
}
int nvmlDeviceGetHandleByUUID(const char *uuid, Device *device) {
    char own[96];
    for (int gpu = 0; gpu < number("gpus", 0); gpu++) {
        uuid_of(gpu, own, sizeof own);
        if (!strcmp(own, uuid)) { *device = (Device)(intptr_t)(gpu + 1); return OK; }
    }
    return NOT_FOUND;
}
int nvmlDeviceGetName(Device d, char *text, unsigned room) { ALIVE(d); gpu_text(gpu_of(d), "name", "NVIDIA Fake", text, room); return OK; }
int nvmlDeviceGetUUID(Device d, char *text, unsigned room) { ALIVE(d); uuid_of(gpu_of(d), text, room); return OK; }
int nvmlDeviceGetPciInfo_v3(Device d, Pci *pci) {
    memset(pci, 0, sizeof *pci);
    snprintf(pci->bus_id, sizeof pci->bus_id, "00000000:%02X:00.0", 0xA0 + gpu_of(d));
    snprintf(pci->legacy, sizeof pci->legacy, "0000:%02X:00.0", 0xA0 + gpu_of(d));
    return OK;
}
int nvmlDeviceGetMemoryInfo_v2(Device d, Memory *memory) {
    ALIVE(d);
    memory->total = gpu_number(gpu_of(d), "memory", 24L << 30);
    memory->used = 1ull << 30;
    memory->free = memory->total - memory->used;
    return OK;
}
int nvmlDeviceGetCudaComputeCapability(Device d, int *major, int *minor) { ALIVE(d); *major = 8; *minor = 9; return OK; }
int nvmlDeviceGetTemperature(Device d, unsigned sensor, unsigned *degrees) { ALIVE(d); *degrees = gpu_number(gpu_of(d), "temperature", 40); return OK; }
int nvmlDeviceGetPowerUsage(Device d, unsigned *milliwatts) { ALIVE(d); *milliwatts = 31500; return OK; }
int nvmlDeviceGetEnforcedPowerLimit(Device d, unsigned *milliwatts) { ALIVE(d); *milliwatts = 72000; return OK; }
int nvmlDeviceGetClockInfo(Device d, unsigned kind, unsigned *mhz) { ALIVE(d); *mhz = 1000 + kind; return OK; }
int nvmlDeviceGetUtilizationRates(Device d, Load *load) { ALIVE(d); load->gpu = 7; load->memory = 3; return OK; }
int nvmlDeviceGetEncoderUtilization(Device d, unsigned *percent, unsigned *period) { ALIVE(d); *percent = 55; *period = 1; return OK; }
/* A card may keep one figure to itself. */
int nvmlDeviceGetDecoderUtilization(Device d, unsigned *percent, unsigned *period) { return UNSUPPORTED; }
int nvmlDeviceGetCurrentClocksThrottleReasons(Device d, unsigned long long *reasons) { ALIVE(d); *reasons = gpu_number(gpu_of(d), "throttle", 1); return OK; }
int nvmlDeviceGetEncoderStats(Device d, unsigned *sessions, unsigned *fps, unsigned *latency) {
    ALIVE(d);
    *sessions = gpu_number(gpu_of(d), "sessions_open", 0);
    *fps = *latency = 0;
    return OK;
}
