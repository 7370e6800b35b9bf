/* A fake libnvidia-encode.so.1, by the layouts and versions of nvEncodeAPI.h 12.1.
 *
 * It is strict where the real one is silent: a structure of another version, an output locked out of order, an input
 * that is still mapped when it is unregistered, a session destroyed with anything left: each is refused or logged.
 */
#include "script.h"

enum { OK = 0, UNSUPPORTED_DEVICE = 2, NOT_EXIST = 5, INVALID_PARAM = 8, INVALID_CALL = 9, NO_MEMORY = 10, INVALID_VERSION = 15,
       MORE_INPUT = 17, BUSY = 18 };
#define API (12u | 1u << 24)
#define VERSION(n) (API | (n) << 16 | 7u << 28)
#define VERSION_X(n) (VERSION(n) | 1u << 31)
#define PICTURES 64
/* GStreamer's plug-in speaks an older version, in which it only asks what there is; a script lets that pass. */
#define ours(given, known) ((given) == (known) || number("any_version", 0))

typedef struct { uint32_t a; uint16_t b, c; uint8_t d[8]; } Guid;
static const Guid CODECS[3] = {
    { 0x6bc82762, 0x4e63, 0x4ca4, { 0xaa, 0x85, 0x1e, 0x50, 0xf3, 0x21, 0xf6, 0xbf } },
    { 0x790cdc88, 0x4522, 0x4d7b, { 0x94, 0x25, 0xbd, 0xa9, 0x97, 0x5f, 0x76, 0x03 } },
    { 0x0a352289, 0x0aa7, 0x4759, { 0x86, 0x2d, 0x5d, 0x15, 0xcd, 0x16, 0xd2, 0x54 } } };
static const char *NAMES[3] = { "h264", "hevc", "av1" };
static const Guid PROFILES[3] = {
    { 0xe7cbc309, 0x4f7a, 0x4b89, { 0xaf, 0x2a, 0xd5, 0x37, 0xc9, 0x2b, 0xe3, 0x10 } },
    { 0xfa4d2b6c, 0x3a5b, 0x411a, { 0x80, 0x18, 0x0a, 0x3f, 0x5e, 0x3c, 0x9b, 0xe5 } },
    { 0x5f2a39f5, 0xf14e, 0x4f95, { 0x9a, 0x9e, 0xb7, 0x6d, 0x56, 0x8f, 0xcf, 0x97 } } };
static const Guid PRESETS[3] = {
    { 0xfc0a8d3e, 0x45f8, 0x4cf8, { 0x80, 0xc7, 0x29, 0x88, 0x71, 0x59, 0x0e, 0xbf } },
    { 0x90a7b826, 0xdf06, 0x4862, { 0xb9, 0xd2, 0xcd, 0x6d, 0x73, 0xa0, 0x86, 0x81 } },
    { 0x84848c12, 0x6f71, 0x4c13, { 0x93, 0x1b, 0x53, 0xe2, 0x83, 0xf5, 0x79, 0x74 } } };

typedef struct { int filled, locked, in_use; uint64_t timestamp; int keyframe; char bytes[96]; } Output;
typedef struct { unsigned char *memory; int mapped; size_t last; } Resource;
typedef struct {
    int gpu, configured, b_frames, outputs, resources, mapped;
    long pictures;
    uint32_t gop;
    Output *waiting[PICTURES]; uint64_t timestamps[PICTURES]; char first[PICTURES]; int held;
    Output *given[PICTURES]; int given_from, given_to;
} Session;

static int sessions[16];
static int gone[16];
static int lost(Session *s) { return gone[s->gpu] || gpu_number(s->gpu, "lost", 0); }
static int is(Guid a, Guid b) { return !memcmp(&a, &b, sizeof a); }
static int makes(int gpu, int codec) {
    char codecs[64];
    gpu_text(gpu, "codecs", "h264 hevc", codecs, sizeof codecs);
    return strstr(codecs, NAMES[codec]) != NULL;
}
#define LIVE(s) if (lost(s)) return NOT_EXIST

typedef struct { uint32_t version, kind; void *device, *reserved; uint32_t api; } Open;
static int open_session(Open *open, Session **session) {
    int gpu = (int)((intptr_t)open->device / 0x1000) - 1;
    *session = NULL;
    if (!ours(open->version, VERSION(1)) || !ours(open->api, API)) return INVALID_VERSION;
    if (open->kind != 1) return INVALID_PARAM;
    if (gone[gpu] || gpu_number(gpu, "lost", 0)) return NOT_EXIST;
    if (!makes(gpu, 0) && !makes(gpu, 1) && !makes(gpu, 2)) return UNSUPPORTED_DEVICE;
    if (sessions[gpu] >= gpu_number(gpu, "sessions_max", 1000)) return NO_MEMORY;
    sessions[gpu]++;
    *session = calloc(1, sizeof **session);
    (*session)->gpu = gpu;
    return OK;
}
static int destroy(Session *s) {
    if (s->outputs || s->resources || s->mapped) logged("LEFT BEHIND");
    sessions[s->gpu]--;
    logged("destroy session");
    free(s);
    return OK;
}
static int codec_count(Session *s, uint32_t *count) {
    LIVE(s);
    *count = makes(s->gpu, 0) + makes(s->gpu, 1) + makes(s->gpu, 2);
    return OK;
}
static int codecs(Session *s, Guid *guids, uint32_t room, uint32_t *count) {
    *count = 0;
    for (int n = 0; n < 3; n++) if (makes(s->gpu, n) && *count < room) guids[(*count)++] = CODECS[n];
    return OK;
}
static int one(Session *s, Guid codec, uint32_t *count) { *count = 1; return OK; }
static int profiles(Session *s, Guid codec, Guid *guids, uint32_t room, uint32_t *count) {
    for (int n = 0; n < 3; n++) if (is(codec, CODECS[n])) guids[0] = PROFILES[n];
    *count = 1;
    return OK;
}
static int three(Session *s, Guid codec, uint32_t *count) { *count = 3; return OK; }
static int presets(Session *s, Guid codec, Guid *guids, uint32_t room, uint32_t *count) {
    memcpy(guids, PRESETS, sizeof PRESETS);
    *count = 3;
    return OK;
}
typedef struct { uint32_t version, cap; } Cap;
static int caps(Session *s, Guid codec, Cap *cap, int *value) {
    LIVE(s);
    if (!ours(cap->version, VERSION(1))) return INVALID_VERSION;
    switch (cap->cap) {
        case 0: *value = gpu_number(s->gpu, "b_frames", 4); break;
        case 1: *value = 0x3f; break;
        case 16: case 17: *value = gpu_number(s->gpu, "width_max", 8192); break;
        case 39: *value = !is(codec, CODECS[0]); break;
        case 45: case 46: *value = 128; break;
        case 49: *value = gpu_number(s->gpu, "engines", 2); break;
        default: *value = 1;
    }
    return OK;
}
typedef struct { uint32_t version; Guid profile; uint32_t gop; int32_t interval; } Config;
/* Before its member, eight bytes' alignment comes from the pointers in the configuration. */
typedef struct { uint32_t version; uint32_t padding; Config config; } PresetConfig;
static int preset_config(Session *s, Guid codec, Guid preset, int tuning, PresetConfig *config) {
    LIVE(s);
    if (config->version != VERSION_X(4) || config->config.version != VERSION_X(8)) return INVALID_VERSION;
    config->config.gop = 250;
    config->config.interval = 1;
    return OK;
}
typedef struct {
    uint32_t version; Guid codec, preset; uint32_t width, height, dar_width, dar_height, rate, rate_den, async, decide, bits, size;
    void *data; Config *config;
} Initialize;
static int initialize(Session *s, Initialize *with) {
    LIVE(s);
    if (with->version != VERSION_X(6) || with->config->version != VERSION_X(8)) return INVALID_VERSION;
    if (s->configured) return INVALID_CALL;
    s->configured = 1;
    s->b_frames = with->config->interval - 1;
    s->gop = with->config->gop;
    return OK;
}
typedef struct { uint32_t version, size, heap, reserved; void *output; } NewOutput;
static int create_output(Session *s, NewOutput *with) {
    LIVE(s);
    if (with->version != VERSION(1)) return INVALID_VERSION;
    s->outputs++;
    with->output = calloc(1, sizeof(Output));
    return OK;
}
static int destroy_output(Session *s, Output *output) { s->outputs--; free(output); logged("destroy output"); return OK; }
typedef struct { uint32_t version, kind, width, height, pitch, index; void *memory; Resource *resource; uint32_t format, usage; } Register;
static int register_resource(Session *s, Register *with) {
    LIVE(s);
    if (with->version != VERSION(4)) return INVALID_VERSION;
    if (with->kind != 1 || with->pitch % 512) return INVALID_PARAM;
    s->resources++;
    with->resource = calloc(1, sizeof(Resource));
    with->resource->memory = with->memory;
    with->resource->last = (size_t)with->pitch * (with->height * 3 / 2 - 1) + with->width - 1;
    return OK;
}
static int unregister(Session *s, Resource *resource) {
    if (resource->mapped) logged("UNREGISTERED WHILE MAPPED");
    s->resources--;
    free(resource);
    logged("unregister");
    return OK;
}
typedef struct { uint32_t version, index; void *input; Resource *resource, *mapped; uint32_t format; } Map;
static int map(Session *s, Map *with) {
    LIVE(s);
    if (with->version != VERSION(4)) return INVALID_VERSION;
    if (with->resource->mapped) return INVALID_CALL;
    with->resource->mapped = 1;
    s->mapped++;
    with->mapped = with->resource;
    return OK;
}
static int unmap(Session *s, Resource *resource) { resource->mapped = 0; s->mapped--; return OK; }

static void fill(Session *s, Output *output, int n) {
    output->filled = 1;
    output->timestamp = s->timestamps[n];
    output->keyframe = s->timestamps[n] % s->gop == 0;
    snprintf(output->bytes, sizeof output->bytes, "gpu %d picture %lu of %d", s->gpu, (unsigned long)s->timestamps[n], s->first[n]);
}
/* Coded order: the last of the held pictures first, then those before it. Outputs are filled in the order of giving. */
static void release(Session *s) {
    if (s->held) fill(s, s->waiting[0], s->held - 1);
    for (int n = 1; n < s->held; n++) fill(s, s->waiting[n], n - 1);
    s->held = 0;
}
typedef struct {
    uint32_t version, width, height, pitch, flags, index; uint64_t timestamp, duration; Resource *input; Output *output;
} Encode;
static int encode(Session *s, Encode *with) {
    static int busy;
    if (lost(s)) logged("A LOST DEVICE WAS ASKED");
    LIVE(s);
    if (with->version != VERSION_X(6)) return INVALID_VERSION;
    if (!s->configured) return INVALID_CALL;
    if (with->flags & 8) { release(s); return OK; }
    if (++busy % 5 == 0) return BUSY;
    if (s->pictures >= gpu_number(s->gpu, "lost_after_pictures", 1L << 40)) { gone[s->gpu] = 1; return NOT_EXIST; }
    if (!with->input->mapped || with->output->in_use) return INVALID_CALL;
    /* The tests fill a picture with one value. */
    if (with->input->memory[0] != with->input->memory[with->input->last]) logged("PICTURE TORN");
    with->output->in_use = 1;
    with->output->filled = 0;
    s->given[s->given_to++ % PICTURES] = with->output;
    s->waiting[s->held] = with->output;
    s->first[s->held] = with->input->memory[0];
    s->timestamps[s->held++] = with->timestamp;
    if (s->pictures++ % (s->b_frames + 1)) return MORE_INPUT;
    release(s);
    return OK;
}
typedef struct {
    uint32_t version, bits; Output *output; uint32_t *slices; uint32_t index, status, count, size; uint64_t timestamp, duration; void *bytes;
    uint32_t kind;
} Lock;
static int lock(Session *s, Lock *with) {
    LIVE(s);
    Output *output = with->output;
    if (with->version != VERSION_X(1)) return INVALID_VERSION;
    if (!output->filled || output != s->given[s->given_from++ % PICTURES]) { logged("LOCKED OUT OF ORDER"); return INVALID_CALL; }
    output->locked = 1;
    with->bytes = output->bytes;
    with->size = strlen(output->bytes);
    with->timestamp = output->timestamp;
    /* IDR, or a kind that no bindings list. */
    with->kind = output->keyframe ? 3 : 0x7777;
    return OK;
}
static int unlock(Session *s, Output *output) { output->locked = output->in_use = 0; return OK; }
static int format_count(Session *s, Guid codec, uint32_t *count) { *count = 1; return OK; }
static int formats(Session *s, Guid codec, uint32_t *list, uint32_t room, uint32_t *count) { list[0] = 1; *count = 1; return OK; }
static const char *last_error(Session *s) { return "the fake says no"; }

typedef struct {
    uint32_t version, reserved;
    void *open_old, *codec_count, *profile_count, *profiles, *codecs, *format_count, *formats, *caps, *preset_count, *presets,
        *preset_config_old, *initialize, *create_input, *destroy_input, *create_output, *destroy_output, *encode, *lock, *unlock,
        *lock_input, *unlock_input, *stats, *sequence, *event, *no_event, *map, *unmap, *destroy, *invalidate, *open,
        *register_resource, *unregister, *reconfigure, *reserved1, *create_mv, *destroy_mv, *motion, *last_error, *streams,
        *preset_config;
} Functions;

int NvEncodeAPIGetMaxSupportedVersion(uint32_t *version) {
    *version = number("nvenc_major", 12) << 4 | number("nvenc_minor", 2);
    return OK;
}
int NvEncodeAPICreateInstance(Functions *f) {
    if (!ours(f->version, VERSION(2))) return INVALID_VERSION;
    f->format_count = format_count; f->formats = formats;
    f->codec_count = codec_count; f->codecs = codecs; f->profile_count = one; f->profiles = profiles;
    f->preset_count = three; f->presets = presets; f->caps = caps; f->preset_config = preset_config;
    f->initialize = initialize; f->create_output = create_output; f->destroy_output = destroy_output;
    f->encode = encode; f->lock = lock; f->unlock = unlock; f->map = map; f->unmap = unmap; f->destroy = destroy;
    f->open = open_session; f->register_resource = register_resource; f->unregister = unregister; f->last_error = last_error;
    return OK;
}
