/* STAND-IN for NVIDIA's libnvidia-ml.so.1, for tests on machines without a GPU.
 *
 * Only what spawner/gpu/devices/nvml.py calls, with the signatures of nvml.h. What it shows is
 * read from the file named by FAKE_NVML_STATE at nvmlInitWithFlags, one line for each thing:
 *
 *   gpu UUID BYTES MIG(0|1) STATE(ok|lost) MODEL TO THE END OF THE LINE
 *   mig UUID BYTES SLOT MODEL TO THE END OF THE LINE      (of the gpu above it)
 *   use PERCENT           utilisation of the gpu above; without this line it is not supported
 *   proc PID PERCENT      a compute process on the gpu or MIG device above
 *   ecc COUNT             uncorrected errors of the gpu above; without: not supported
 *   remap PENDING FAILED  of the gpu above; without: not supported
 *   slices COUNT          of the MIG device above; without: not supported
 *   xid CODE              a critical error of the gpu above, reported once
 *   lose                  the gpu above is lost as soon as it has told its UUID
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
#define PROCESSES 8

enum { SUCCESS = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6,
       INSUFFICIENT_SIZE = 7, TIMEOUT = 10, GPU_IS_LOST = 15 };

struct device {
    char uuid[96], model[96];
    unsigned long long memory;
    int used, mig_mode, lost;
    struct device *slots;
    int use, remap_pending, remap_failed, part, xid, loses;
    long long ecc;
    unsigned processes, pids[PROCESSES], percents[PROCESSES];
};

static struct device gpus[GPUS], slots[GPUS][SLOTS];
static unsigned count;

static int read_state(void)
{
    char line[512], state[16];
    FILE *file = fopen(getenv("FAKE_NVML_STATE") ? getenv("FAKE_NVML_STATE") : "", "r");
    int code;
    unsigned slot;
    struct device *above = NULL;

    count = 0;
    memset(gpus, 0, sizeof gpus);
    memset(slots, 0, sizeof slots);
    if (!file)
        return INVALID_ARGUMENT;
    while (fgets(line, sizeof line, file)) {
        struct device *gpu = &gpus[count];
        struct device found = {.used = 1, .use = -1, .ecc = -1, .remap_pending = -1, .part = -1};
        struct device *last = count ? &gpus[count - 1] : NULL;
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
            above = gpu;
            count++;
        } else if (count && sscanf(line, "mig %95s %llu %u %95[^\n]", found.uuid, &found.memory,
                                   &slot, found.model) == 4 && slot < SLOTS) {
            slots[count - 1][slot] = found;
            above = &slots[count - 1][slot];
        } else if (above && above->processes < PROCESSES &&
                   sscanf(line, "proc %u %u", &above->pids[above->processes],
                          &above->percents[above->processes]) == 2) {
            above->processes++;
        } else if (last && (sscanf(line, "use %d", &last->use) == 1 ||
                            sscanf(line, "ecc %lld", &last->ecc) == 1 ||
                            sscanf(line, "xid %d", &last->xid) == 1 ||
                            sscanf(line, "remap %d %d", &last->remap_pending,
                                   &last->remap_failed) == 2)) {
        } else if (last && !strncmp(line, "lose", 4)) {
            last->loses = 1;
        } else if (above) {
            sscanf(line, "slices %d", &above->part);
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

int nvmlDeviceGetMinorNumber(struct device *device, unsigned *out)
{
    *out = (unsigned)(device - gpus);
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

struct utilization { unsigned gpu, memory; };

int nvmlDeviceGetUtilizationRates(struct device *device, struct utilization *out)
{
    if (device->loses)
        return GPU_IS_LOST;
    if (device->use < 0)
        return NOT_SUPPORTED;
    out->gpu = (unsigned)device->use;
    return SUCCESS;
}

struct process { unsigned pid; unsigned long long memory; unsigned gpu_part, compute_part; };

int nvmlDeviceGetComputeRunningProcesses_v3(struct device *device, unsigned *size,
                                            struct process *out)
{
    unsigned room = *size;

    *size = device->processes;
    if (room < device->processes)
        return INSUFFICIENT_SIZE;
    for (unsigned i = 0; i < device->processes; i++)
        out[i] = (struct process){.pid = device->pids[i]};
    return SUCCESS;
}

struct sample { unsigned pid; unsigned long long time; unsigned sm, memory, encoder, decoder; };

int nvmlDeviceGetProcessUtilization(struct device *device, struct sample *out, unsigned *size,
                                    unsigned long long since)
{
    if (!device->processes)
        return NOT_FOUND;
    if (!out) {
        *size = device->processes;
        return INSUFFICIENT_SIZE;
    }
    for (unsigned i = 0; i < device->processes; i++)
        out[i] = (struct sample){.pid = device->pids[i], .time = since, .sm = device->percents[i]};
    return SUCCESS;
}

int nvmlDeviceGetTotalEccErrors(struct device *device, int type, int counter,
                                unsigned long long *out)
{
    (void)type, (void)counter;
    if (device->loses)
        return GPU_IS_LOST;
    if (device->ecc < 0)
        return NOT_SUPPORTED;
    *out = (unsigned long long)device->ecc;
    return SUCCESS;
}

int nvmlDeviceGetRemappedRows(struct device *device, unsigned *corrected, unsigned *uncorrected,
                              unsigned *pending, unsigned *failed)
{
    if (device->remap_pending < 0)
        return NOT_SUPPORTED;
    *corrected = *uncorrected = 0;
    *pending = (unsigned)device->remap_pending;
    *failed = (unsigned)device->remap_failed;
    return SUCCESS;
}

struct attributes { unsigned counts[6], gpu_slices, compute_slices; unsigned long long megabytes; };

int nvmlDeviceGetAttributes_v2(struct device *device, struct attributes *out)
{
    if (device->part < 0)
        return NOT_SUPPORTED;
    out->gpu_slices = (unsigned)device->part;
    return SUCCESS;
}

struct event { struct device *device; unsigned long long type, data; unsigned parts[2]; };

int nvmlEventSetCreate(struct device **out)
{
    *out = gpus;
    return SUCCESS;
}

int nvmlDeviceRegisterEvents(struct device *device, unsigned long long types, struct device *set)
{
    (void)device, (void)types, (void)set;
    return SUCCESS;
}

int nvmlEventSetWait_v2(struct device *set, struct event *out, unsigned milliseconds)
{
    (void)set;
    for (unsigned i = 0; i < count; i++) {
        if (gpus[i].xid) {
            *out = (struct event){.device = &gpus[i], .type = 8, .data = (unsigned)gpus[i].xid};
            gpus[i].xid = 0;
            return SUCCESS;
        }
    }
    usleep(milliseconds * 1000);
    return TIMEOUT;
}
