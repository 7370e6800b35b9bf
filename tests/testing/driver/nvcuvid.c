/* A fake libnvcuvid.so.1: capabilities of a decoder, by the layout of cuviddec.h. */
#include "script.h"

typedef struct {
    int codec, chroma; unsigned depth_minus_8, reserved1[3];
    unsigned char supported, engines; unsigned short formats;
    unsigned width_max, height_max, blocks_max; unsigned short width_min, height_min;
    unsigned char histogram, counter_depth; unsigned short bins; unsigned reserved3[10];
} Caps;

int cuvidGetDecoderCaps(Caps *caps) {
    long engines = number("decoders", 2);
    int h264 = caps->codec == 4 && caps->chroma == 1 && caps->depth_minus_8 == 0;
    int hevc = caps->codec == 8 && (caps->chroma == 1 || caps->chroma == 3);
    caps->supported = engines && (h264 || hevc);
    if (!caps->supported) return 0;
    caps->engines = engines;
    caps->width_max = caps->height_max = h264 ? 4096 : 8192;
    caps->blocks_max = caps->width_max / 16 * caps->height_max / 16;
    caps->width_min = caps->height_min = 48;
    return 0;
}

/* What GStreamer's plug-in looks up before it registers any decoder. None of them decodes. */
#define REFUSED(name) int name() { return 999; }
REFUSED(cuvidCtxLockCreate) REFUSED(cuvidCtxLockDestroy) REFUSED(cuvidCtxLock) REFUSED(cuvidCtxUnlock)
REFUSED(cuvidCreateDecoder) REFUSED(cuvidDestroyDecoder) REFUSED(cuvidDecodePicture) REFUSED(cuvidCreateVideoParser)
REFUSED(cuvidParseVideoData) REFUSED(cuvidDestroyVideoParser) REFUSED(cuvidMapVideoFrame64)
REFUSED(cuvidUnmapVideoFrame64)
