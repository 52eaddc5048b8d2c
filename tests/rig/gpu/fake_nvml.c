/* STAND-IN for NVIDIA's libnvidia-ml.so.1, for tests on machines without a GPU.
 *
 * Only what spawner/gpu/nvml.py calls, with the signatures of nvml.h. What it shows is
 * read from the file named by FAKE_NVML_STATE at nvmlInitWithFlags, one line for each thing:
 *
 *   gpu UUID BYTES MIG(0|1) STATE(ok|lost) MODEL TO THE END OF THE LINE
 *   mig UUID BYTES SLOT MODEL TO THE END OF THE LINE      (of the gpu above it)
 *   fail CODE                                             nvmlInitWithFlags returns CODE
 *   hang                                                  nvmlInitWithFlags never returns
 *
 * Build: cc -shared -fPIC -Wl,-soname,libnvidia-ml.so.1 -o libnvidia-ml.so.1 fake_nvml.c
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define GPUS 16
#define SLOTS 7

enum { SUCCESS = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, GPU_IS_LOST = 15 };

struct device {
    char uuid[96], model[96];
    unsigned long long memory;
    int used, mig_mode, lost;
    struct device *slots;
};

static struct device gpus[GPUS], slots[GPUS][SLOTS];
static unsigned count;

static int read_state(void)
{
    char line[512], state[16];
    FILE *file = fopen(getenv("FAKE_NVML_STATE") ? getenv("FAKE_NVML_STATE") : "", "r");
    int code;
    unsigned slot;

    count = 0;
    memset(gpus, 0, sizeof gpus);
    memset(slots, 0, sizeof slots);
    if (!file)
        return INVALID_ARGUMENT;
    while (fgets(line, sizeof line, file)) {
        struct device *gpu = &gpus[count], found = {.used = 1};
        if (sscanf(line, "fail %d", &code) == 1) {
            fclose(file);
            return code;
        }
        if (!strncmp(line, "hang", 4))
            for (;;)
                pause();
        if (count < GPUS && sscanf(line, "gpu %95s %llu %d %15s %95[^\n]", found.uuid,
                                   &found.memory, &found.mig_mode, state, found.model) == 5) {
            found.lost = !strcmp(state, "lost");
            found.slots = slots[count];
            *gpu = found;
            count++;
        } else if (count && sscanf(line, "mig %95s %llu %u %95[^\n]", found.uuid, &found.memory,
                                   &slot, found.model) == 4 && slot < SLOTS) {
            slots[count - 1][slot] = found;
        }
    }
    fclose(file);
    return SUCCESS;
}

int nvmlInitWithFlags(unsigned flags)
{
    (void)flags;
    return read_state();
}

int nvmlShutdown(void) { return SUCCESS; }

const char *nvmlErrorString(int code)
{
    return code == GPU_IS_LOST ? "GPU is lost" : code ? "stand-in error" : "Success";
}

int nvmlDeviceGetCount_v2(unsigned *out)
{
    *out = count;
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, struct device **out)
{
    if (index >= count)
        return INVALID_ARGUMENT;
    *out = &gpus[index];
    return gpus[index].lost ? GPU_IS_LOST : SUCCESS;
}

static int text(const char *from, char *to, unsigned length)
{
    snprintf(to, length, "%s", from);
    return SUCCESS;
}

int nvmlDeviceGetUUID(struct device *device, char *out, unsigned length)
{
    return text(device->uuid, out, length);
}

int nvmlDeviceGetName(struct device *device, char *out, unsigned length)
{
    return text(device->model, out, length);
}

int nvmlDeviceGetMemoryInfo(struct device *device, unsigned long long out[3])
{
    out[0] = out[1] = device->memory; /* total, free, used */
    out[2] = 0;
    return SUCCESS;
}

int nvmlDeviceGetMigMode(struct device *device, unsigned *current, unsigned *pending)
{
    if (device->mig_mode < 0)
        return NOT_SUPPORTED;
    *current = *pending = (unsigned)device->mig_mode;
    return SUCCESS;
}

int nvmlDeviceGetMaxMigDeviceCount(struct device *device, unsigned *out)
{
    *out = device->mig_mode > 0 ? SLOTS : 0;
    return SUCCESS;
}

int nvmlDeviceGetMigDeviceHandleByIndex(struct device *device, unsigned index, struct device **out)
{
    if (index >= SLOTS)
        return INVALID_ARGUMENT;
    *out = &device->slots[index];
    return device->slots[index].used ? SUCCESS : NOT_FOUND;
}
