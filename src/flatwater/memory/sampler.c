/* Where what is alive was allocated: a sample of Python's allocations, on all the time. Included by _heap.c.
 *
 * Hooks around Python's allocators (the domains mem and obj) count down bytes; the allocation at which the count runs out
 * is noted with its stack, until it is freed. The distance to the next is exponential with the mean `interval`, so an
 * allocation of s bytes is noted with the probability 1 - exp(-s / interval), whatever the program's rhythm. When the
 * table is full the interval doubles, and what is there is thinned to what the larger one would have left: memory is
 * bounded, and the estimates stay unbiased.
 *
 * In a hook no Python runs and nothing is allocated; code objects are held, and let go at a safe point. The GIL guards
 * all. Interpreters of their own GIL are passed over.
 */
#if INTERNALS

#include <math.h>

enum { FILTER = 1 << 16, STACK = 16, NO_SITE = 0 };

typedef struct {
    PyCodeObject *code; /* owned */
    int at;             /* offset in its bytecode */
} Step;

typedef struct {
    uint64_t hash; /* 0: free */
    uint32_t live; /* samples that are alive */
    int depth;
    Step steps[STACK]; /* innermost first */
} AllocationSite;

typedef struct {
    uintptr_t block; /* 0: free */
    size_t bytes;
    uint32_t site, at; /* `at`: seconds since the start */
} Sample;

/* What a hook reads each time is in one line of the cache. The domains count down each for itself. */
typedef struct {
    int64_t left; /* bytes to go */
    PyMemAllocatorEx inner;
    PyMemAllocatorDomain domain;
    int hooked;
} __attribute__((aligned(64))) Hook;

static struct {
    int on, sweeping, frames;
    double interval;
    uint64_t random, noted, dropped;
    double began;
    PyInterpreterState *interpreter;
    Sample *samples, *spare; /* a table by block, twice as large as `most`; and one to build the next in */
    size_t most, count, mask;
    AllocationSite *sites; /* a table by hash; the first is for what found no room */
    size_t site_most, site_count;
    uint8_t filter[FILTER]; /* how many samples share the low bits of a block: most frees end here */
} sampler;

static Hook hooks[] = {{.domain = PYMEM_DOMAIN_MEM}, {.domain = PYMEM_DOMAIN_OBJ}};

#define FILTERED(block) ((uintptr_t)(block) >> 4 & (FILTER - 1))

static inline size_t
sample_hash(uintptr_t block)
{
    return (size_t)((block >> 4) * 0x9E3779B97F4A7C15u >> 20);
}

static double
uniform(void) /* above 0, at most 1 */
{
    sampler.random ^= sampler.random << 13;
    sampler.random ^= sampler.random >> 7;
    sampler.random ^= sampler.random << 17;
    return (double)((sampler.random >> 11) + 1) / 9007199254740992.0;
}

static void
draw(Hook *hook)
{
    hook->left = (int64_t)(-log(uniform()) * sampler.interval) + 1;
}

static double
chance(size_t bytes, double interval)
{
    return -expm1(-(double)(bytes ? bytes : 1) / interval);
}

/* ---- samples ----------------------------------------------------------------------------------------------------- */

static void
samples_put(Sample *table, Sample sample)
{
    size_t at = sample_hash(sample.block) & sampler.mask;
    while (table[at].block)
        at = (at + 1) & sampler.mask;
    table[at] = sample;
}

/* An unsure count stays: 255 means "maybe more". */
static void
filter_add(uintptr_t block)
{
    uint8_t *filter = &sampler.filter[FILTERED(block)];
    *filter += *filter < 255;
}

/* Thin to what twice the interval would have left. */
static void
samples_thin(void)
{
    double before = sampler.interval;
    sampler.interval *= 2;
    memset(sampler.spare, 0, (sampler.mask + 1) * sizeof(Sample));
    memset(sampler.filter, 0, FILTER);
    sampler.count = 0;
    for (size_t i = 0; i <= sampler.mask; i++) {
        Sample *sample = &sampler.samples[i];
        if (!sample->block)
            continue;
        if (uniform() * chance(sample->bytes, before) > chance(sample->bytes, sampler.interval)) {
            sampler.sites[sample->site].live--;
            continue;
        }
        samples_put(sampler.spare, *sample);
        filter_add(sample->block);
        sampler.count++;
    }
    Sample *table = sampler.samples;
    sampler.samples = sampler.spare;
    sampler.spare = table;
}

static void
samples_forget(uintptr_t block)
{
    size_t at = sample_hash(block) & sampler.mask, next;
    if (!sampler.on || block == 0)
        return;
    while (sampler.samples[at].block != block) {
        if (!sampler.samples[at].block)
            return; /* the filter knew another */
        at = (at + 1) & sampler.mask;
    }
    sampler.sites[sampler.samples[at].site].live--;
    sampler.count--;
    uint8_t *filter = &sampler.filter[FILTERED(block)];
    *filter -= *filter < 255;
    for (next = (at + 1) & sampler.mask; sampler.samples[next].block; next = (next + 1) & sampler.mask) {
        size_t home = sample_hash(sampler.samples[next].block) & sampler.mask; /* close the gap */
        if (((next - home) & sampler.mask) < ((next - at) & sampler.mask))
            continue;
        sampler.samples[at] = sampler.samples[next];
        at = next;
    }
    sampler.samples[at].block = 0;
}

/* ---- sites ------------------------------------------------------------------------------------------------------- */

/* At a safe point: let go of the sites of which nothing is alive. Letting go of code may run anything. */
static int
sites_sweep(void *unused)
{
    (void)unused;
    sampler.sweeping = 0;
    if (!sampler.on)
        return 0;
    PyObject **dead = PyMem_RawMalloc(sampler.site_most * STACK * sizeof(PyObject *));
    AllocationSite *kept = PyMem_RawCalloc(sampler.site_most, sizeof(AllocationSite));
    uint32_t *moved = PyMem_RawCalloc(sampler.site_most, sizeof(uint32_t));
    size_t dead_count = 0;
    if (dead == NULL || kept == NULL || moved == NULL)
        goto end;
    kept[NO_SITE] = sampler.sites[NO_SITE];
    sampler.site_count = 1;
    for (size_t i = 1; i < sampler.site_most; i++) {
        AllocationSite *site = &sampler.sites[i];
        if (site->hash && !site->live)
            for (int step = 0; step < site->depth; step++)
                dead[dead_count++] = (PyObject *)site->steps[step].code;
        if (!site->hash || !site->live)
            continue;
        size_t at = 1 + site->hash % (sampler.site_most - 1);
        while (kept[at].hash)
            at = at + 1 < sampler.site_most ? at + 1 : 1;
        kept[at] = *site;
        moved[i] = (uint32_t)at;
        sampler.site_count++;
    }
    for (size_t i = 0; i <= sampler.mask; i++)
        if (sampler.samples[i].block)
            sampler.samples[i].site = moved[sampler.samples[i].site];
    AllocationSite *before = sampler.sites;
    sampler.sites = kept;
    kept = before;
end:
    PyMem_RawFree(kept);
    PyMem_RawFree(moved);
    for (size_t i = 0; i < dead_count; i++)
        Py_DECREF(dead[i]);
    PyMem_RawFree(dead);
    return 0;
}

static int
same_steps(const AllocationSite *a, const AllocationSite *b)
{
    return a->hash == b->hash && a->depth == b->depth && !memcmp(a->steps, b->steps, (size_t)a->depth * sizeof(Step));
}

static uint32_t
site_of(PyThreadState *thread)
{
    AllocationSite here;
    uint64_t hash = 14695981039346656037u;
    here.depth = 0;
    for (_PyInterpreterFrame *frame = thread_frame(thread); frame != NULL && here.depth < sampler.frames;
         frame = frame->previous) {
        PyCodeObject *code = _PyFrame_IsIncomplete(frame) ? NULL : frame_code(frame);
        if (code == NULL)
            continue;
        Step *step = &here.steps[here.depth++];
        memset(step, 0, sizeof(*step)); /* padding is compared, too */
        step->code = code;
        step->at = _PyInterpreterFrame_LASTI(frame) * (int)sizeof(_Py_CODEUNIT);
        hash = (hash ^ (uintptr_t)code ^ (uint64_t)step->at << 40) * 0x9E3779B97F4A7C15u;
        hash ^= hash >> 29;
    }
    here.hash = hash ? hash : 1;
    if (here.depth == 0)
        return NO_SITE;
    size_t at = 1 + here.hash % (sampler.site_most - 1);
    while (sampler.sites[at].hash && !same_steps(&sampler.sites[at], &here))
        at = at + 1 < sampler.site_most ? at + 1 : 1;
    if (sampler.sites[at].hash)
        return (uint32_t)at;
    if (sampler.site_count >= sampler.site_most * 3 / 4) {
        if (!sampler.sweeping)
            sampler.sweeping = Py_AddPendingCall(sites_sweep, NULL) == 0;
        sampler.dropped++;
        return NO_SITE;
    }
    here.live = 0;
    for (int i = 0; i < here.depth; i++)
        Py_INCREF(here.steps[i].code);
    sampler.sites[at] = here;
    sampler.site_count++;
    return (uint32_t)at;
}

/* ---- hooks ------------------------------------------------------------------------------------------------------- */

static void __attribute__((noinline, cold))
note(Hook *hook, void *block, size_t bytes)
{
    draw(hook);
    PyThreadState *thread = _PyThreadState_UncheckedGet();
    if (block == NULL || !sampler.on || thread == NULL || thread->interp != sampler.interpreter)
        return;
    if (sampler.count >= sampler.most)
        samples_thin();
    Sample sample = {(uintptr_t)block, bytes, site_of(thread), (uint32_t)(now_s() - sampler.began)};
    sampler.sites[sample.site].live++;
    samples_put(sampler.samples, sample);
    filter_add(sample.block);
    sampler.count++;
    sampler.noted++;
}

/* The hooks are short and end in a jump to what they stand before; whatever takes longer is out of their way. */
#define RARELY(condition) __builtin_expect((condition), 0)

static void * __attribute__((noinline, cold))
noted_malloc(Hook *hook, size_t bytes)
{
    void *block = hook->inner.malloc(hook->inner.ctx, bytes);
    note(hook, block, bytes);
    return block;
}

static void *
hook_malloc(void *context, size_t bytes)
{
    Hook *hook = context;
    if (RARELY((hook->left -= (int64_t)bytes) < 0))
        return noted_malloc(hook, bytes);
    return hook->inner.malloc(hook->inner.ctx, bytes);
}

static void * __attribute__((noinline, cold))
noted_calloc(Hook *hook, size_t count, size_t size)
{
    void *block = hook->inner.calloc(hook->inner.ctx, count, size);
    note(hook, block, count * size); /* too large a product has failed: there is no block */
    return block;
}

static void *
hook_calloc(void *context, size_t count, size_t size)
{
    Hook *hook = context;
    if (RARELY((hook->left -= (int64_t)(count * size)) < 0))
        return noted_calloc(hook, count, size);
    return hook->inner.calloc(hook->inner.ctx, count, size);
}

/* Whoever makes a block larger is its maker from then on. */
static void * __attribute__((noinline, cold))
noted_realloc(Hook *hook, void *before, size_t bytes)
{
    void *block = hook->inner.realloc(hook->inner.ctx, before, bytes);
    if (block == NULL)
        return NULL; /* what was there stays */
    samples_forget((uintptr_t)before);
    if (hook->left < 0)
        note(hook, block, bytes);
    return block;
}

static void *
hook_realloc(void *context, void *before, size_t bytes)
{
    Hook *hook = context;
    hook->left -= (int64_t)bytes;
    if (RARELY(hook->left < 0 || sampler.filter[FILTERED(before)]))
        return noted_realloc(hook, before, bytes);
    return hook->inner.realloc(hook->inner.ctx, before, bytes);
}

static void
hook_free(void *context, void *block)
{
    Hook *hook = context;
    if (RARELY(sampler.filter[FILTERED(block)]))
        samples_forget((uintptr_t)block);
    hook->inner.free(hook->inner.ctx, block);
}

static int
hook_on_top(Hook *hook)
{
    PyMemAllocatorEx top;
    PyMem_GetAllocator(hook->domain, &top);
    return top.ctx == hook && top.malloc == hook_malloc;
}

/* Whether a domain's allocations still come here: who stood below us may have put its own predecessor back. */
static int
hook_called(Hook *hook)
{
    int64_t before = hook->left = INT64_MAX;
    void *block = hook->domain == PYMEM_DOMAIN_MEM ? PyMem_Malloc(64) : PyObject_Malloc(64);
    int called = hook->left != before;
    hook->domain == PYMEM_DOMAIN_MEM ? PyMem_Free(block) : PyObject_Free(block);
    draw(hook);
    return called;
}

/* ---- module ------------------------------------------------------------------------------------------------------ */

PyDoc_STRVAR(sampler_start_doc,
"sampler_start(interval, most, sites, frames)\n\n"
"Begin to note one allocation each `interval` bytes, at most `most` that are alive, of at most `sites` stacks with at\n"
"most `frames` (16) places. Raises RuntimeError when it is on already.");

static PyObject *
sampler_start(PyObject *module, PyObject *args)
{
    double interval;
    Py_ssize_t most, sites;
    int frames;
    (void)module;
    if (!PyArg_ParseTuple(args, "dnni", &interval, &most, &sites, &frames))
        return NULL;
    if (interval < 1 || most < 16 || most > 1 << 20 || sites < 16 || sites > 1 << 16 || frames < 1 || frames > STACK) {
        PyErr_SetString(PyExc_ValueError, "interval from 1, most from 16 to 2**20, sites from 16 to 2**16, frames from 1 to 16");
        return NULL;
    }
    if (!internals_hold || sampler.on) {
        PyErr_SetString(PyExc_RuntimeError, sampler.on ? "the sampler is on already" : "the layouts of this Python are not known");
        return NULL;
    }
    size_t slots = 32;
    while (slots < 2 * (size_t)most)
        slots *= 2;
    sampler.samples = PyMem_RawCalloc(slots, sizeof(Sample));
    sampler.spare = PyMem_RawCalloc(slots, sizeof(Sample));
    sampler.sites = PyMem_RawCalloc((size_t)sites, sizeof(AllocationSite));
    if (!sampler.samples || !sampler.spare || !sampler.sites) {
        PyMem_RawFree(sampler.samples);
        PyMem_RawFree(sampler.spare);
        PyMem_RawFree(sampler.sites);
        return PyErr_NoMemory();
    }
    sampler.most = (size_t)most;
    sampler.mask = slots - 1;
    sampler.count = 0;
    sampler.site_most = (size_t)sites;
    sampler.site_count = 1;
    sampler.frames = frames;
    sampler.interval = interval;
    sampler.noted = sampler.dropped = 0;
    sampler.began = now_s();
    sampler.random = (uint64_t)(sampler.began * 1e9) * 2 + 1;
    sampler.interpreter = PyInterpreterState_Get();
    sampler.on = 1;
    for (size_t i = 0; i < Py_ARRAY_LENGTH(hooks); i++) {
        Hook *hook = &hooks[i];
        draw(hook);
        if (hook->hooked && hook_called(hook)) /* something else stood on top when we were switched off, and does */
            continue;
        PyMemAllocatorEx own = {hook, hook_malloc, hook_calloc, hook_realloc, hook_free};
        PyMem_GetAllocator(hook->domain, &hook->inner);
        PyMem_SetAllocator(hook->domain, &own);
        hook->hooked = 1;
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(sampler_stop_doc,
"sampler_stop()\n\n"
"Note nothing more and forget all. The hooks go, unless another (tracemalloc) stands on top of them: then they stay and\n"
"pass on what they are asked. Stopping twice is allowed.");

static PyObject *
sampler_stop(PyObject *module, PyObject *args)
{
    (void)module, (void)args;
    if (!sampler.on)
        Py_RETURN_NONE;
    sampler.on = 0;
    for (size_t i = 0; i < Py_ARRAY_LENGTH(hooks); i++)
        if (hook_on_top(&hooks[i])) {
            PyMem_SetAllocator(hooks[i].domain, &hooks[i].inner);
            hooks[i].hooked = 0;
        }
    memset(sampler.filter, 0, FILTER);
    sampler.interval = 1e15; /* for a hook that stays: next to never */
    for (size_t i = 0; i < Py_ARRAY_LENGTH(hooks); i++)
        draw(&hooks[i]);
    AllocationSite *sites = sampler.sites;
    PyMem_RawFree(sampler.samples);
    PyMem_RawFree(sampler.spare);
    sampler.samples = sampler.spare = NULL;
    sampler.sites = NULL;
    for (size_t i = 1; i < sampler.site_most; i++)
        for (int step = 0; sites[i].hash && step < sites[i].depth; step++)
            Py_DECREF(sites[i].steps[step].code);
    PyMem_RawFree(sites);
    Py_RETURN_NONE;
}

static PyObject *
steps_tuple(const AllocationSite *site)
{
    PyObject *stack = PyTuple_New(site->depth);
    for (int i = 0; stack != NULL && i < site->depth; i++) {
        PyCodeObject *code = site->steps[i].code;
        PyObject *place = Py_BuildValue("OOi", code->co_filename, code->co_qualname, PyCode_Addr2Line(code, site->steps[i].at));
        if (place == NULL)
            Py_CLEAR(stack);
        else
            PyTuple_SET_ITEM(stack, i, place);
    }
    return stack;
}

PyDoc_STRVAR(sampler_read_doc,
"sampler_read() -> (interval, noted, dropped, alive, most, seconds, [(count, bytes, oldest, stack)]) or None\n\n"
"What is alive by its stack, estimated; None while it is off. `oldest`: seconds. The stack is () for what found no room.\n"
"A hook that somebody has removed is told by a negative interval.");

static PyObject *
sampler_read(PyObject *module, PyObject *args)
{
    (void)module, (void)args;
    if (!sampler.on)
        Py_RETURN_NONE;
    sites_sweep(NULL);
    size_t count = sampler.count, used = 0;
    double interval = sampler.interval, seconds = now_s() - sampler.began;
    for (size_t i = 0; i < Py_ARRAY_LENGTH(hooks); i++)
        if (!hook_called(&hooks[i]))
            interval = interval < 0 ? interval : -interval;
    /* Figures first: what is made below allocates, and may change the tables. */
    struct Row { uint32_t site; double count, bytes; uint32_t oldest; } *rows = PyMem_RawCalloc(sampler.site_most, sizeof(*rows));
    if (rows == NULL)
        return PyErr_NoMemory();
    for (size_t i = 0; i <= sampler.mask; i++) {
        Sample *sample = &sampler.samples[i];
        if (!sample->block)
            continue;
        struct Row *row = &rows[sample->site];
        double weight = 1 / chance(sample->bytes, sampler.interval);
        if (row->count == 0 || sample->at < row->oldest)
            row->oldest = sample->at;
        row->count += weight;
        row->bytes += weight * (double)sample->bytes;
    }
    AllocationSite *sites = PyMem_RawMalloc(sampler.site_most * sizeof(AllocationSite));
    PyObject *found = sites ? PyList_New(0) : PyErr_NoMemory();
    for (size_t i = 0; sites != NULL && i < sampler.site_most; i++) {
        if (rows[i].count == 0)
            continue;
        sites[used] = sampler.sites[i];
        rows[used] = rows[i];
        for (int step = 0; step < sites[used].depth; step++)
            Py_INCREF(sites[used].steps[step].code);
        used++;
    }
    for (size_t i = 0; i < used; i++) {
        PyObject *stack = found ? steps_tuple(&sites[i]) : NULL;
        PyObject *row = stack ? Py_BuildValue("ddIN", rows[i].count, rows[i].bytes,
                                              (unsigned int)(seconds > rows[i].oldest ? seconds - rows[i].oldest : 0), stack)
                              : NULL;
        if (row == NULL || PyList_Append(found, row) < 0)
            Py_CLEAR(found);
        Py_XDECREF(row);
        for (int step = 0; step < sites[i].depth; step++)
            Py_DECREF(sites[i].steps[step].code);
    }
    PyMem_RawFree(rows);
    PyMem_RawFree(sites);
    if (found == NULL)
        return NULL;
    return Py_BuildValue("dKKnndN", interval, (unsigned long long)sampler.noted, (unsigned long long)sampler.dropped,
                         (Py_ssize_t)count, (Py_ssize_t)sampler.most, seconds, found);
}

#endif
