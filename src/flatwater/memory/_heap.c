/* The heap walker: what is on the Python heap, who holds it, and how much each object keeps alive.
 *
 * Three promises hold everywhere in this file. While a heap is walked no reference count is written, no Python code
 * runs and no Python object is created (the one exception, sized_by_method(), is explained there); our own memory
 * comes from counted anonymous mappings, never from malloc, because graph work happens in a forked child whose other
 * threads vanished at an arbitrary point; and no struct offset is written down: layouts come from the headers of the
 * Python that this file is compiled against, and are checked against its public interface when the module loads.
 *
 * Sections: version shim · mappings · address map · types and sizes · objects of the heap · references · census ·
 * taking · walk · roots · reach · dominators · names · answers · child · module.
 */
#define PY_SSIZE_T_CLEAN
#define _GNU_SOURCE
#include <patchlevel.h>

/* Later versions, and builds with -DFLATWATER_PUBLIC_ONLY, use the public interface alone: the objects come from
 * PyUnstable_GC_VisitObjects, the frames from the caller, and an inline attribute has no name. */
#if !defined(FLATWATER_PUBLIC_ONLY) && PY_VERSION_HEX < 0x030E0000
#  define INTERNALS 1
#  define Py_BUILD_CORE 1
#else
#  define INTERNALS 0
#endif
#include <Python.h>
#include <datetime.h>
#include <structmember.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifdef Py_GIL_DISABLED
#  error "the heap walker needs a Python with the GIL: reference counts are split in free-threaded builds"
#endif
#if PY_VERSION_HEX < 0x030B0000
#  error "the heap walker needs Python 3.11 or later"
#endif

/* ---- version shim: everything that knows a private layout ------------------------------------------------------- */

#if INTERNALS
#  pragma GCC diagnostic push
#  pragma GCC diagnostic ignored "-Wdeprecated-declarations"
#  pragma GCC diagnostic ignored "-Wunused-parameter"
#  include "internal/pycore_gc.h"
#  include "internal/pycore_interp.h"
#  include "internal/pycore_frame.h"
#  include "internal/pycore_dict.h"
#  include "internal/pycore_object.h"
#  include "internal/pycore_context.h"
#  pragma GCC diagnostic pop
#endif

/* False when the running patch release lays its structs out differently from the one we were compiled against. */
static int internals_hold = 0;

static inline int
is_tracked(PyObject *op)
{
#if INTERNALS
    return _PyObject_GC_IS_TRACKED(op);
#else
    return PyObject_GC_IsTracked(op);
#endif
}

static inline int
is_immortal(PyObject *op)
{
#if PY_VERSION_HEX >= 0x030C0000
    return _Py_IsImmortal(op);
#else
    (void)op;
    return 0;
#endif
}

static inline Py_ssize_t
int_digits(PyObject *op)
{
#if PY_VERSION_HEX >= 0x030C0000 /* ob_size is gone from ints: Py_SIZE aborts on them */
    size_t digits = ((PyLongObject *)op)->long_value.lv_tag >> _PyLong_NON_SIZE_BITS;
#else
    Py_ssize_t digits = Py_SIZE(op);
    digits = digits < 0 ? -digits : digits;
#endif
    return digits ? (Py_ssize_t)digits : 1;
}

#if INTERNALS
static inline _PyInterpreterFrame *
thread_frame(PyThreadState *thread)
{
#if PY_VERSION_HEX >= 0x030D0000
    return thread->current_frame;
#else
    return thread->cframe ? thread->cframe->current_frame : NULL;
#endif
}

/* The code that a frame runs, or NULL for the interpreter's own entry frames. */
static inline PyCodeObject *
frame_code(_PyInterpreterFrame *frame)
{
#if PY_VERSION_HEX >= 0x030C0000
    if (frame->owner == FRAME_OWNED_BY_CSTACK)
        return NULL;
#endif
#if PY_VERSION_HEX >= 0x030D0000
    return frame->f_executable && PyCode_Check(frame->f_executable) ? (PyCodeObject *)frame->f_executable : NULL;
#else
    return frame->f_code;
#endif
}

static inline PyObject *
frame_function(_PyInterpreterFrame *frame)
{
#if PY_VERSION_HEX >= 0x030C0000
    return frame->f_funcobj;
#else
    return (PyObject *)frame->f_func;
#endif
}

static int
frame_line(_PyInterpreterFrame *frame, PyCodeObject *code)
{
    int at = _PyInterpreterFrame_LASTI(frame);
    return PyCode_Addr2Line(code, at * (int)sizeof(_Py_CODEUNIT));
}

static inline _PyInterpreterFrame *
generator_frame(PyObject *op)
{
    PyGenObject *generator = (PyGenObject *)op;
    return generator->gi_frame_state < FRAME_CLEARED ? (_PyInterpreterFrame *)generator->gi_iframe : NULL;
}

/* An instance's attributes while no dict was made for them. Never ask for __dict__: that makes one. */
static PyDictValues *
inline_values(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
    if (!PyType_HasFeature(type, Py_TPFLAGS_MANAGED_DICT))
        return NULL;
#if PY_VERSION_HEX >= 0x030D0000
    if (!PyType_HasFeature(type, Py_TPFLAGS_INLINE_VALUES))
        return NULL;
    PyDictValues *values = _PyObject_InlineValues(op);
    return values->valid ? values : NULL;
#elif PY_VERSION_HEX >= 0x030C0000
    PyDictOrValues either = *_PyObject_DictOrValuesPointer(op);
    return _PyDictOrValues_IsValues(either) ? _PyDictOrValues_GetValues(either) : NULL;
#else
    return *_PyObject_ValuesPointer(op);
#endif
}

static PyObject *
managed_dict(PyObject *op)
{
#if PY_VERSION_HEX >= 0x030D0000
    return (PyObject *)_PyObject_ManagedDictPointer(op)->dict;
#elif PY_VERSION_HEX >= 0x030C0000
    PyDictOrValues either = *_PyObject_DictOrValuesPointer(op);
    return _PyDictOrValues_IsValues(either) ? NULL : either.dict;
#else
    return *_PyObject_ManagedDictPointer(op);
#endif
}

static size_t
inline_values_bytes(PyObject *op)
{
    PyTypeObject *type = Py_TYPE(op);
#if PY_VERSION_HEX >= 0x030D0000
    return PyType_HasFeature(type, Py_TPFLAGS_INLINE_VALUES) ? _PyInlineValuesSize(type) : 0;
#else
    PyDictValues *values = inline_values(op);
    PyDictKeysObject *keys = ((PyHeapTypeObject *)type)->ht_cached_keys;
    if (values == NULL || keys == NULL)
        return 0;
    /* The slots an instance gets shrink as its class settles; the prefix tells how many this one got, up to eight. */
    size_t prefix = ((uint8_t *)values)[-1], slots = (size_t)(keys->dk_usable + keys->dk_nentries);
    return prefix + (slots + 9 > prefix ? slots : prefix - 9) * sizeof(PyObject *);
#endif
}

static size_t
dict_table_bytes(PyDictObject *dict)
{
    PyDictKeysObject *keys = dict->ma_keys;
    size_t usable = ((size_t)1 << keys->dk_log2_size) * 2 / 3;
    if (dict->ma_values != NULL)
        return usable * sizeof(PyObject *);
    if (keys->dk_refcnt != 1) /* shared with other dicts, or the one empty table */
        return 0;
    size_t entry = DK_IS_UNICODE(keys) ? sizeof(PyDictUnicodeEntry) : sizeof(PyDictKeyEntry);
    return sizeof(PyDictKeysObject) + ((size_t)1 << keys->dk_log2_index_bytes) + usable * entry;
}

/* Does this build's idea of the layouts agree with what the public interface says? */
static int
layouts_agree(void)
{
    PyThreadState *thread = PyThreadState_Get();
    PyObject *probe = PyList_New(0); /* a new object is the last of the youngest generation */
    if (probe == NULL)
        return 0;
    int agree = _PyGCHead_NEXT(_Py_AS_GC(probe)) == &thread->interp->gc.generations[0].head;
    Py_DECREF(probe);
    PyFrameObject *top = PyThreadState_GetFrame(thread);
    if (!agree || top == NULL)
        return agree && top == NULL;
    PyCodeObject *code = PyFrame_GetCode(top);
    _PyInterpreterFrame *frame = thread_frame(thread);
    while (frame != NULL && frame_code(frame) == NULL)
        frame = frame->previous;
    agree = frame != NULL && frame_code(frame) == code;
    Py_DECREF(code);
    Py_DECREF(top);
    return agree;
}
#endif

/* ---- mappings: memory of our own, counted ----------------------------------------------------------------------- */

typedef struct {
    size_t used;
    size_t max;
    int failed; /* once set, every further growth is refused and the walk winds up */
} Budget;

typedef struct {
    void *data;
    size_t bytes;
} Region;

static int
region_need(Budget *budget, Region *region, size_t bytes)
{
    if (bytes <= region->bytes)
        return 0;
    size_t want = region->bytes + region->bytes / 4; /* moving costs page-table entries only, so a quarter is enough */
    want = ((want < bytes ? bytes : want) + 0xFFFF) & ~(size_t)0xFFFF;
    if (budget->failed || budget->used + (want - region->bytes) > budget->max) {
        budget->failed = 1;
        return -1;
    }
    void *data = region->data == NULL
        ? mmap(NULL, want, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
        : mremap(region->data, region->bytes, want, MREMAP_MAYMOVE);
    if (data == MAP_FAILED) {
        budget->failed = 1;
        return -1;
    }
    budget->used += want - region->bytes;
    region->data = data;
    region->bytes = want;
    return 0;
}

static void
region_free(Budget *budget, Region *region)
{
    if (region->data != NULL) {
        munmap(region->data, region->bytes);
        budget->used -= region->bytes;
    }
    region->data = NULL;
    region->bytes = 0;
}

static double
now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* ---- address map: from an object's address to a bit (census) or a number (walk) --------------------------------- */

/* Two objects never start in the same 16 bytes (PyObject_HEAD is 16 bytes), so address / 16 is a key. Tables cover
 * 1 MiB of addresses each: neighbours on the heap are neighbours here, which a hash table would throw away. */
enum { CHUNK_SHIFT = 20, GRANULES = 1 << (CHUNK_SHIFT - 4), SLAB_CHUNKS = 32 };

typedef struct {
    uintptr_t key; /* address >> CHUNK_SHIFT, plus 1; 0 is empty */
    void *table;
} Chunk;

typedef struct {
    Budget *budget;
    size_t table_bytes;
    Region chunks; /* open addressing */
    size_t mask, count;
    Region slabs[4096]; /* address space only: pages come when they are touched */
    size_t slab_count, slab_used;
    uintptr_t last_key;
    void *last_table;
} Map;

static int
map_init(Map *map, Budget *budget, size_t table_bytes)
{
    map->budget = budget;
    map->table_bytes = table_bytes;
    map->mask = 4095;
    map->slab_used = SLAB_CHUNKS;
    return region_need(budget, &map->chunks, (map->mask + 1) * sizeof(Chunk));
}

static void
map_free(Map *map)
{
    region_free(map->budget, &map->chunks);
    for (size_t i = 0; i < map->slab_count; i++)
        munmap(map->slabs[i].data, map->slabs[i].bytes);
    map->budget->used -= map->count * map->table_bytes;
}

static Chunk *
map_place(Map *map, uintptr_t key)
{
    Chunk *chunks = map->chunks.data;
    size_t at = (size_t)(key * 0x9E3779B97F4A7C15ull >> 32) & map->mask;
    while (chunks[at].key != 0 && chunks[at].key != key)
        at = (at + 1) & map->mask;
    return &chunks[at];
}

static int
map_grow(Map *map)
{
    Region old = map->chunks;
    size_t size = map->mask + 1;
    map->chunks = (Region){0};
    if (region_need(map->budget, &map->chunks, size * 2 * sizeof(Chunk)) < 0) {
        map->chunks = old;
        return -1;
    }
    map->mask = size * 2 - 1;
    for (size_t i = 0; i < size; i++) {
        Chunk *chunk = (Chunk *)old.data + i;
        if (chunk->key != 0)
            *map_place(map, chunk->key) = *chunk;
    }
    region_free(map->budget, &old);
    return 0;
}

/* A zeroed table from the current slab. Slabs are address space; a chunk's table is counted when it is handed out. */
static void *
map_table(Map *map)
{
    Budget *budget = map->budget;
    size_t slab_bytes = map->table_bytes * SLAB_CHUNKS;
    if (budget->failed || budget->used + map->table_bytes > budget->max)
        goto failed;
    if (map->slab_used == SLAB_CHUNKS) {
        if (map->slab_count == sizeof(map->slabs) / sizeof(map->slabs[0]))
            goto failed;
        void *data = mmap(NULL, slab_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (data == MAP_FAILED)
            goto failed;
        map->slabs[map->slab_count++] = (Region){data, slab_bytes};
        map->slab_used = 0;
    }
    budget->used += map->table_bytes;
    return (char *)map->slabs[map->slab_count - 1].data + map->slab_used++ * map->table_bytes;
failed:
    budget->failed = 1;
    return NULL;
}

static void *
map_chunk(Map *map, const void *address, int create)
{
    uintptr_t key = ((uintptr_t)address >> CHUNK_SHIFT) + 1;
    if (key == map->last_key)
        return map->last_table;
    Chunk *chunk = map_place(map, key);
    if (chunk->key == 0) {
        if (!create)
            return NULL;
        if (map->count * 2 > map->mask) {
            if (map_grow(map) < 0)
                return NULL;
            chunk = map_place(map, key);
        }
        void *table = map_table(map);
        if (table == NULL)
            return NULL;
        *chunk = (Chunk){key, table};
        map->count++;
    }
    map->last_key = key;
    map->last_table = chunk->table;
    return chunk->table;
}

static inline size_t
granule(const void *address)
{
    return ((uintptr_t)address & ((1u << CHUNK_SHIFT) - 1)) >> 4;
}

static inline uint32_t *
map_number(Map *map, const void *address, int create)
{
    uint32_t *table = map_chunk(map, address, create);
    return table == NULL ? NULL : table + granule(address);
}

/* Mark an address; true when it was not marked before. A full budget says "seen", so that the caller stops. */
static inline int
map_first_sight(Map *map, const void *address)
{
    uint8_t *table = map_chunk(map, address, 1);
    if (table == NULL)
        return 0;
    size_t at = granule(address);
    uint8_t bit = (uint8_t)(1u << (at & 7));
    if (table[at >> 3] & bit)
        return 0;
    table[at >> 3] |= bit;
    return 1;
}

/* ---- types and sizes -------------------------------------------------------------------------------------------- */

typedef enum {
    KIND_ATOM, /* holds no references */
    KIND_OPAQUE, /* C code that does not say what it holds */
    KIND_INSTANCE, /* says what it holds through tp_traverse */
    KIND_DATETIME, KIND_TIME, /* their tzinfo has no tp_traverse, and no room when it is None */
    KIND_INT, KIND_STR, KIND_BYTES, KIND_BYTEARRAY,
    KIND_TUPLE, KIND_LIST, KIND_DICT, KIND_SET, KIND_DEQUE,
    KIND_CODE, KIND_TYPE, KIND_FUNCTION, KIND_FRAME, KIND_GENERATOR,
} Kind;

typedef struct {
    PyTypeObject *type;
    Kind kind;
    size_t header; /* bytes before the object: the collector's and the dict pointer's */
    PyCFunction size_of; /* a C __sizeof__ of the standard library or numpy, or NULL */
    PyCFunction written; /* a text stream's C tell: it gathers what is written where its __sizeof__ does not look */
    uint64_t count, bytes, tracked;
} Type;

typedef struct {
    Budget *budget;
    Region rows, index;
    uint32_t count, mask;
    PyTypeObject *hot[256];
    uint32_t hot_row[256];
} Types;

/* Types whose storage only their own C __sizeof__ knows. Found before a walk begins; see sized_by_method(). */
static const struct { const char *module, *name; } sized_names[] = {
    {"collections", "deque"}, {"collections", "OrderedDict"}, {"array", "array"}, {"_io", "BytesIO"},
    {"_io", "StringIO"}, {"_io", "BufferedReader"}, {"_io", "BufferedWriter"}, {"_io", "BufferedRandom"},
    {"_struct", "Struct"}, {"re", "Pattern"}, {"types", "GeneratorType"}, {"types", "CoroutineType"},
    {"types", "AsyncGeneratorType"}, {"types", "FrameType"}, {"mmap", "mmap"}, {"numpy", "ndarray"},
    {"builtins", "dict"},
};
enum { SIZED = sizeof(sized_names) / sizeof(sized_names[0]) };

typedef struct {
    PyTypeObject *type;
    PyCFunction size_of, written;
} Sized;

static Sized sized[SIZED];
static PyTypeObject *deque_type, *datetime_type, *time_type, *array_type;
static destructor made_dealloc; /* of every class that was made by a class statement */

static PyTypeObject *
loaded_type(const char *module_name, const char *name)
{
    PyObject *modules = PyImport_GetModuleDict();
    PyObject *module = modules ? PyDict_GetItemString(modules, module_name) : NULL;
    PyObject *scope = module && PyModule_Check(module) ? PyModule_GetDict(module) : NULL;
    PyObject *type = scope ? PyDict_GetItemString(scope, name) : NULL;
    return type && PyType_Check(type) ? (PyTypeObject *)type : NULL;
}

/* A method without arguments that is written in C, or NULL. */
static PyCFunction
method_of(PyTypeObject *type, PyObject *name)
{
    PyObject *method = name ? _PyType_Lookup(type, name) : NULL;
    if (method == NULL || !Py_IS_TYPE(method, &PyMethodDescr_Type))
        return NULL;
    PyMethodDef *definition = ((PyMethodDescrObject *)method)->d_method;
    int flags = definition->ml_flags & (METH_NOARGS | METH_O | METH_VARARGS | METH_FASTCALL);
    return flags == METH_NOARGS ? definition->ml_meth : NULL;
}

/* Runs before a walk, where reference counts may still be touched; looks only at modules that are loaded. */
static void
find_sized_types(void)
{
    PyObject *name = PyUnicode_InternFromString("__sizeof__"), *tell = PyUnicode_InternFromString("tell");
    deque_type = loaded_type("collections", "deque");
    datetime_type = loaded_type("_datetime", "datetime"); /* absent when datetime is the one written in Python */
    time_type = loaded_type("_datetime", "time");
    array_type = loaded_type("array", "array");
    PyTypeObject *made = loaded_type("_frozen_importlib", "ModuleSpec");
    made_dealloc = made != NULL ? made->tp_dealloc : NULL;
    for (size_t i = 0; i < SIZED; i++) {
        PyTypeObject *type = loaded_type(sized_names[i].module, sized_names[i].name);
        PyCFunction size_of = type ? method_of(type, name) : NULL;
        PyCFunction written = size_of && strcmp(sized_names[i].name, "StringIO") == 0 ? method_of(type, tell) : NULL;
        sized[i] = size_of ? (Sized){type, size_of, written} : (Sized){0};
    }
    Py_XDECREF(tell);
    Py_XDECREF(name);
    PyErr_Clear();
}

static int
inherits(PyTypeObject *type, PyTypeObject *base)
{
    for (; type != NULL && base != NULL; type = type->tp_base)
        if (type == base)
            return 1;
    return 0;
}

static Kind
type_kind(PyTypeObject *type)
{
    unsigned long flags = type->tp_flags;
    static const struct { unsigned long flag; Kind kind; } by_flag[] = {
        {Py_TPFLAGS_LONG_SUBCLASS, KIND_INT}, {Py_TPFLAGS_UNICODE_SUBCLASS, KIND_STR},
        {Py_TPFLAGS_BYTES_SUBCLASS, KIND_BYTES}, {Py_TPFLAGS_TUPLE_SUBCLASS, KIND_TUPLE},
        {Py_TPFLAGS_LIST_SUBCLASS, KIND_LIST}, {Py_TPFLAGS_DICT_SUBCLASS, KIND_DICT},
        {Py_TPFLAGS_TYPE_SUBCLASS, KIND_TYPE},
    };
    for (size_t i = 0; i < sizeof(by_flag) / sizeof(by_flag[0]); i++)
        if (flags & by_flag[i].flag)
            return by_flag[i].kind;
    struct { PyTypeObject *base; Kind kind; } by_base[] = {
        {&PySet_Type, KIND_SET}, {&PyFrozenSet_Type, KIND_SET}, {&PyByteArray_Type, KIND_BYTEARRAY},
        {deque_type, KIND_DEQUE}, {&PyCode_Type, KIND_CODE}, {&PyFunction_Type, KIND_FUNCTION},
        {&PyFrame_Type, KIND_FRAME}, {&PyGen_Type, KIND_GENERATOR}, {&PyCoro_Type, KIND_GENERATOR},
        {&PyAsyncGen_Type, KIND_GENERATOR}, {&PyFloat_Type, KIND_ATOM}, {&PyComplex_Type, KIND_ATOM},
        {Py_TYPE(Py_None), KIND_ATOM},
    };
    for (size_t i = 0; i < sizeof(by_base) / sizeof(by_base[0]); i++)
        if (inherits(type, by_base[i].base))
            return by_base[i].kind == KIND_ATOM && (flags & Py_TPFLAGS_HAVE_GC) ? KIND_INSTANCE : by_base[i].kind;
    if (type == datetime_type || type == time_type)
        return type == time_type ? KIND_TIME : KIND_DATETIME;
    return flags & Py_TPFLAGS_HAVE_GC ? KIND_INSTANCE : type == &PyBaseObject_Type ? KIND_ATOM : KIND_OPAQUE;
}

static int
types_init(Types *types, Budget *budget)
{
    types->budget = budget;
    types->mask = 4095;
    return region_need(budget, &types->index, (types->mask + 1) * sizeof(uint32_t));
}

static void
types_free(Types *types)
{
    region_free(types->budget, &types->rows);
    region_free(types->budget, &types->index);
}

static inline Type *
type_row(Types *types, uint32_t row)
{
    return (Type *)types->rows.data + row;
}

static uint32_t *
types_place(Types *types, PyTypeObject *type)
{
    uint32_t *index = types->index.data;
    size_t at = ((uintptr_t)type >> 4) * 0x9E3779B97F4A7C15ull >> 32 & types->mask;
    while (index[at] != 0 && type_row(types, index[at] - 1)->type != type)
        at = (at + 1) & types->mask;
    return &index[at];
}

static int
types_grow(Types *types)
{
    uint32_t mask = types->mask * 2 + 1;
    region_free(types->budget, &types->index);
    if (region_need(types->budget, &types->index, ((size_t)mask + 1) * sizeof(uint32_t)) < 0)
        return -1;
    types->mask = mask;
    for (uint32_t i = 0; i < types->count; i++)
        *types_place(types, type_row(types, i)->type) = i + 1;
    return 0;
}

static int
types_add(Types *types, PyTypeObject *type)
{
    if (region_need(types->budget, &types->rows, (types->count + 1) * sizeof(Type)) < 0)
        return -1;
    if (types->count * 2 > types->mask && types_grow(types) < 0)
        return -1;
    Type row = {.type = type, .kind = type_kind(type)};
    row.header = PyType_IS_GC(type) ? 16 : 0;
#if PY_VERSION_HEX >= 0x030C0000
    row.header += PyType_HasFeature(type, Py_TPFLAGS_PREHEADER) ? 2 * sizeof(PyObject *) : 0;
#else
    row.header += PyType_HasFeature(type, Py_TPFLAGS_MANAGED_DICT) ? 2 * sizeof(PyObject *) : 0;
#endif
    for (size_t i = 0; i < SIZED && row.size_of == NULL; i++)
        if (inherits(type, sized[i].type) && !(internals_hold && sized[i].type == &PyDict_Type))
            row.size_of = sized[i].size_of, row.written = sized[i].type == type ? sized[i].written : NULL;
    *type_row(types, types->count) = row;
    *types_place(types, type) = ++types->count;
    return 0;
}

/* The row of a type; the first row when the budget is spent (the walk is then about to stop). */
static inline uint32_t
types_find(Types *types, PyTypeObject *type)
{
    size_t hot = (uintptr_t)type >> 5 & 255;
    if (types->hot[hot] == type)
        return types->hot_row[hot];
    uint32_t *place = types_place(types, type);
    if (*place == 0) {
        if (types_add(types, type) < 0)
            return 0;
        place = types_place(types, type);
    }
    types->hot[hot] = type;
    types->hot_row[hot] = *place - 1;
    return *place - 1;
}

/* The C method of a known type computes its size and returns an int, which we free at once. This is the one place
 * where an object is made during a walk: never a container, never for a type outside sized_names. */
static size_t
sized_by_method(PyCFunction size_of, PyObject *op)
{
    PyObject *result = size_of(op, NULL);
    size_t bytes = result && PyLong_Check(result) ? PyLong_AsSize_t(result) : (size_t)-1;
    Py_XDECREF(result);
    if (bytes != (size_t)-1)
        return bytes;
    PyErr_Clear();
    return (size_t)Py_TYPE(op)->tp_basicsize;
}

static size_t
str_bytes(PyObject *op)
{
    PyASCIIObject *ascii = (PyASCIIObject *)op;
    size_t length = (size_t)ascii->length, bytes;
    if (PyUnicode_IS_COMPACT_ASCII(op))
        bytes = sizeof(PyASCIIObject) + length + 1;
    else if (PyUnicode_IS_COMPACT(op))
        bytes = sizeof(PyCompactUnicodeObject) + (length + 1) * ascii->state.kind;
    else { /* a subclass keeps its text elsewhere */
        void *text = ((PyUnicodeObject *)op)->data.any;
        bytes = (size_t)Py_TYPE(op)->tp_basicsize + (text ? (length + 1) * ascii->state.kind : 0);
    }
    if (!PyUnicode_IS_COMPACT_ASCII(op)) {
        PyCompactUnicodeObject *compact = (PyCompactUnicodeObject *)op;
        void *text = PyUnicode_IS_COMPACT(op) ? NULL : ((PyUnicodeObject *)op)->data.any;
        if (compact->utf8 != NULL && (void *)compact->utf8 != text)
            bytes += (size_t)compact->utf8_length + 1;
    }
    return bytes;
}

static size_t
type_bytes(PyTypeObject *type)
{
    if (!PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE))
        return sizeof(PyTypeObject);
    size_t bytes = (size_t)Py_TYPE(type)->tp_basicsize + (size_t)(Py_SIZE(type) * Py_TYPE(type)->tp_itemsize);
#if INTERNALS
    PyDictKeysObject *keys = ((PyHeapTypeObject *)type)->ht_cached_keys;
    if (keys != NULL) {
        size_t usable = ((size_t)1 << keys->dk_log2_size) * 2 / 3;
        size_t entry = DK_IS_UNICODE(keys) ? sizeof(PyDictUnicodeEntry) : sizeof(PyDictKeyEntry);
        bytes += sizeof(PyDictKeysObject) + ((size_t)1 << keys->dk_log2_index_bytes) + usable * entry;
    }
#endif
    return bytes;
}

/* What sys.getsizeof says, found without calling the object; plus inline attribute values, which it leaves out. */
static size_t
shallow_bytes(const Type *row, PyObject *op)
{
    PyTypeObject *type = row->type;
    size_t bytes = (size_t)type->tp_basicsize;
    if (row->written != NULL)
        bytes += sized_by_method(row->written, op);
    if (row->size_of != NULL) {
        size_t told = sized_by_method(row->size_of, op);
        return row->header + (row->written != NULL && bytes > told ? bytes : told);
    }
    switch (row->kind) {
    case KIND_INT:
        bytes = (size_t)(type == &PyBool_Type ? PyLong_Type.tp_basicsize : type->tp_basicsize);
        bytes += (size_t)int_digits(op) * sizeof(digit);
        break;
    case KIND_STR:
        bytes = str_bytes(op);
        break;
    case KIND_CODE:
        bytes += ((size_t)(Py_SIZE(op) * type->tp_itemsize) + 7) & ~(size_t)7;
        break;
    case KIND_BYTES: case KIND_TUPLE:
        bytes += (size_t)(Py_SIZE(op) * type->tp_itemsize);
        break;
    case KIND_BYTEARRAY:
        bytes += (size_t)((PyByteArrayObject *)op)->ob_alloc;
        break;
    case KIND_LIST:
        bytes += (size_t)((PyListObject *)op)->allocated * sizeof(PyObject *);
        break;
    case KIND_SET: {
        PySetObject *set = (PySetObject *)op;
        bytes += set->table != set->smalltable ? (size_t)(set->mask + 1) * sizeof(setentry) : 0;
        break;
    }
    case KIND_TYPE:
        return type_bytes((PyTypeObject *)op) + (PyObject_IS_GC(op) ? row->header : 0);
#if INTERNALS
    case KIND_DICT:
        bytes += internals_hold ? dict_table_bytes((PyDictObject *)op) : 0;
        break;
#endif
    default:
        bytes += type == &PyMemoryView_Type ? (size_t)(Py_SIZE(op) * type->tp_itemsize) : 0;
        break;
    }
#if INTERNALS
    if (internals_hold && PyType_HasFeature(type, Py_TPFLAGS_MANAGED_DICT))
        bytes += inline_values_bytes(op);
#endif
    return row->header + bytes;
}

/* Entries of a container, or -1. */
static Py_ssize_t
container_length(Kind kind, PyObject *op)
{
    switch (kind) {
    case KIND_LIST: case KIND_TUPLE: case KIND_DEQUE: return Py_SIZE(op);
    case KIND_DICT: return ((PyDictObject *)op)->ma_used;
    case KIND_SET: return ((PySetObject *)op)->used;
    default: return -1;
    }
}

/* ---- objects of the heap ---------------------------------------------------------------------------------------- */

typedef int (*EachObject)(PyObject *op, void *arg); /* 1 goes on, 0 stops: PyUnstable_GC_VisitObjects' own meaning */

/* Every object that the collector tracks, frozen ones included. With the headers at hand the generation lists are read
 * directly: PyUnstable_GC_VisitObjects writes every object's reference count, and until 3.13 it left out what
 * gc.freeze() set aside. A list that a collection has taken apart in another thread is short, never broken: collections
 * let go of the GIL only in finalizers, when the lists are whole again but for the garbage. */
static void
each_tracked(EachObject each, void *arg)
{
#if INTERNALS
    if (internals_hold) {
        struct _gc_runtime_state *gc = &PyThreadState_Get()->interp->gc;
        PyGC_Head *heads[NUM_GENERATIONS + 1];
        for (int i = 0; i < NUM_GENERATIONS; i++)
            heads[i] = &gc->generations[i].head;
        heads[NUM_GENERATIONS] = &gc->permanent_generation.head;
        for (int i = 0; i <= NUM_GENERATIONS; i++)
            for (PyGC_Head *at = _PyGCHead_NEXT(heads[i]); at != heads[i]; at = _PyGCHead_NEXT(at))
                if (!each((PyObject *)(at + 1), arg))
                    return;
        return;
    }
#endif
#if PY_VERSION_HEX >= 0x030C0000
    PyUnstable_GC_VisitObjects(each, arg);
#endif
}

/* ---- references: what an object holds --------------------------------------------------------------------------- */

#define VISIT(op) do { if ((op) != NULL && visit((PyObject *)(op), arg)) return; } while (0)

static void
visit_code(PyCodeObject *code, visitproc visit, void *arg)
{
    VISIT(code->co_consts);
    VISIT(code->co_names);
    VISIT(code->co_exceptiontable);
    VISIT(code->co_localsplusnames);
    VISIT(code->co_localspluskinds);
    VISIT(code->co_filename);
    VISIT(code->co_name);
    VISIT(code->co_qualname);
    VISIT(code->co_linetable);
}

static void
visit_type(PyTypeObject *type, visitproc visit, void *arg)
{
    if (!PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE)) { /* its tp_traverse aborts on a static type */
        VISIT(type->tp_dict);
        VISIT(type->tp_bases);
        VISIT(type->tp_mro);
        return;
    }
    Py_TYPE(type)->tp_traverse((PyObject *)type, visit, arg);
    VISIT(((PyHeapTypeObject *)type)->ht_name);
    VISIT(((PyHeapTypeObject *)type)->ht_qualname);
    VISIT(((PyHeapTypeObject *)type)->ht_slots);
}

typedef struct {
    visitproc visit;
    void *arg;
    Py_ssize_t count;
} Counter;

static int
count_and_pass(PyObject *op, void *arg)
{
    Counter *counter = arg;
    counter->count++;
    return counter->visit == NULL ? 0 : counter->visit(op, counter->arg);
}

/* dict's tp_traverse leaves the keys out when all of them are str, for a str cannot be part of a cycle. They are
 * memory all the same. Split tables share their keys with the type, so those belong to no dict. */
static void
visit_dict(PyObject *op, visitproc visit, void *arg)
{
    PyDictObject *dict = (PyDictObject *)op;
    Counter counter = {visit, arg, 0};
    Py_TYPE(op)->tp_traverse(op, count_and_pass, &counter);
    if (dict->ma_values != NULL || dict->ma_used == 0)
        return;
    if (!PyDict_CheckExact(op)) { /* a subclass visits more than its entries: count those alone */
        counter = (Counter){NULL, NULL, 0};
        PyDict_Type.tp_traverse(op, count_and_pass, &counter);
    }
    if (counter.count > dict->ma_used)
        return;
    PyObject *key, *value;
    Py_ssize_t at = 0;
    while (PyDict_Next(op, &at, &key, &value))
        if (PyUnicode_CheckExact(key))
            VISIT(key);
}

/* Types that may leave the collector's lists for good while they hold references, or never enter them. */
static inline int
holds_while_untracked(Kind kind)
{
    return kind >= KIND_TUPLE && kind != KIND_DEQUE;
}

/* Report every reference that an object owns. Opaque objects report nothing here; see guess_references(). */
static void
visit_references(const Type *row, PyObject *op, visitproc visit, void *arg)
{
    switch (row->kind) {
    case KIND_ATOM: case KIND_OPAQUE:
        return;
    case KIND_DATETIME:
        if (((PyDateTime_DateTime *)op)->hastzinfo)
            visit(((PyDateTime_DateTime *)op)->tzinfo, arg);
        return;
    case KIND_TIME:
        if (((PyDateTime_Time *)op)->hastzinfo)
            visit(((PyDateTime_Time *)op)->tzinfo, arg);
        return;
    case KIND_CODE:
        visit_code((PyCodeObject *)op, visit, arg);
        return;
    case KIND_TYPE:
        visit_type((PyTypeObject *)op, visit, arg);
        return;
    default:
        if (!PyObject_IS_GC(op) || !(is_tracked(op) || holds_while_untracked(row->kind)))
            return;
        if (row->kind == KIND_DICT)
            visit_dict(op, visit, arg);
        else
            row->type->tp_traverse(op, visit, arg);
    }
}

/* ---- answers: JSON, written into a mapping ---------------------------------------------------------------------- */

typedef struct {
    Budget budget; /* apart from the graph's: an answer must fit even when the graph filled its own */
    Region text;
    size_t length;
} Out;

static void
out_bytes(Out *out, const char *bytes, size_t length)
{
    if (region_need(&out->budget, &out->text, out->length + length) < 0)
        return;
    memcpy((char *)out->text.data + out->length, bytes, length);
    out->length += length;
}

static void __attribute__((format(printf, 2, 3)))
out_format(Out *out, const char *format, ...)
{
    char line[256];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(line, sizeof(line), format, arguments);
    va_end(arguments);
    out_bytes(out, line, length < (int)sizeof(line) ? (size_t)length : sizeof(line) - 1);
}

/* One character; everything outside printable ASCII as \uXXXX, so that no encoder is needed. */
static void
out_character(Out *out, Py_UCS4 c)
{
    if (c == '"' || c == '\\')
        out_format(out, "\\%c", (char)c);
    else if (c >= 0x20 && c < 0x7F)
        out_bytes(out, &(char){(char)c}, 1);
    else if (c < 0x10000)
        out_format(out, "\\u%04x", (unsigned)c);
    else
        out_format(out, "\\u%04x\\u%04x", 0xD800u + ((unsigned)(c - 0x10000) >> 10), 0xDC00u + ((unsigned)c & 0x3FF));
}

static int
is_text(PyObject *op)
{
#if PY_VERSION_HEX < 0x030C0000
    return op != NULL && PyUnicode_Check(op) && PyUnicode_IS_READY(op);
#else
    return op != NULL && PyUnicode_Check(op);
#endif
}

enum { MAX_TEXT = 400 };

/* A str without its quotes, read in place: the usual encoders would allocate and cache. */
static void
out_text(Out *out, PyObject *text)
{
    if (!is_text(text))
        return;
    int kind = PyUnicode_KIND(text);
    const void *data = PyUnicode_DATA(text);
    Py_ssize_t length = PyUnicode_GET_LENGTH(text);
    for (Py_ssize_t i = 0; i < length && i < MAX_TEXT; i++)
        out_character(out, PyUnicode_READ(kind, data, i));
}

static void
out_string(Out *out, const char *text)
{
    for (; *text; text++)
        out_character(out, (unsigned char)*text);
}

static int
text_equals(PyObject *text, const char *ascii)
{
    if (!is_text(text) || PyUnicode_GET_LENGTH(text) != (Py_ssize_t)strlen(ascii))
        return 0;
    for (Py_ssize_t i = 0; ascii[i]; i++)
        if (PyUnicode_READ_CHAR(text, i) != (Py_UCS4)(unsigned char)ascii[i])
            return 0;
    return 1;
}

/* The value of a str key in a dict of names, without a look-up (which could compare, and so run code). */
static PyObject *
dict_entry(PyObject *dict, const char *name)
{
    PyObject *key, *value;
    Py_ssize_t at = 0;
    while (dict != NULL && PyDict_Next(dict, &at, &key, &value))
        if (text_equals(key, name))
            return value;
    return NULL;
}

/* module.qualname, as the type says of itself; the module is left out for builtins. */
static void
out_type_name(Out *out, PyTypeObject *type)
{
    if (!PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE)) {
        out_string(out, type->tp_name);
        return;
    }
    PyObject *module = dict_entry(type->tp_dict, "__module__");
    if (is_text(module) && !text_equals(module, "builtins")) {
        out_text(out, module);
        out_bytes(out, ".", 1);
    }
    out_text(out, ((PyHeapTypeObject *)type)->ht_qualname);
}

static void
out_types(Out *out, Types *types)
{
    out_format(out, "\"types\":[");
    for (uint32_t i = 0, written = 0; i < types->count; i++) {
        Type *row = type_row(types, i);
        if (row->count == 0)
            continue;
        out_format(out, written++ ? ",[\"" : "[\"");
        out_type_name(out, row->type);
        out_format(out, "\",%llu,%llu,%llu]", (unsigned long long)row->count, (unsigned long long)row->bytes,
                   (unsigned long long)row->tracked);
    }
    out_format(out, "]");
}

/* ---- roots: what the interpreter itself holds ------------------------------------------------------------------- */

typedef enum { ROOT_LOOP, ROOT_MODULE, ROOT_THREAD, ROOT_INTERPRETER, ROOT_FRAME, ROOT_STACK, ROOT_C, ROOT_GARBAGE } RootKind;
static const char *const root_names[] = {
    "event loop", "module", "thread", "interpreter", "frame", "value stack", "C", "garbage",
};

/* Names that last come first: a path through a module tells more than one through a local variable that happens to
 * refer to the same object just now. C roots come last, for they are known by their effect only. */
enum { TIER_NAMED, TIER_FRAME, TIER_GUESS, TIERS };
static const int root_tiers[] = {TIER_NAMED, TIER_NAMED, TIER_NAMED, TIER_NAMED, TIER_FRAME, TIER_GUESS, TIER_GUESS, TIERS};

typedef struct {
    RootKind kind;
    PyObject *name, *file; /* str of the walked process, or NULL */
    int line;
    unsigned long thread;
    uint32_t first, count; /* its holds */
} Root;

typedef struct {
    uint32_t node;
    PyObject *name;    /* str of the walked process, or NULL: then the label says */
    const char *label;
} Hold;

typedef struct {
    void (*begin)(const Root *root, void *arg);
    void (*hold)(PyObject *op, PyObject *name, const char *label, void *arg);
    void *arg;
    PyObject *skip;   /* str: frames of the calling thread are left out while their file begins with this */
    PyObject *locals; /* list of (object, (qualname, file, line, thread), name) where frames cannot be read */
} Sink;

static void
hold(Sink *sink, PyObject *op, PyObject *name, const char *label)
{
    if (op != NULL)
        sink->hold(op, name, label, sink->arg);
}

static void
module_roots(Sink *sink)
{
    PyObject *modules = PyImport_GetModuleDict(), *name, *module;
    Py_ssize_t at = 0;
    sink->begin(&(Root){.kind = ROOT_MODULE}, sink->arg);
    while (modules != NULL && PyDict_Next(modules, &at, &name, &module))
        hold(sink, module, name, "module");
    hold(sink, modules, NULL, "sys.modules");
}

static void
thread_roots(Sink *sink, PyThreadState *thread)
{
    Root root = {.kind = ROOT_LOOP, .thread = thread->native_thread_id};
    PyObject *hook = thread->async_gen_firstiter; /* asyncio and uvloop: a method of the loop, while it runs */
    PyObject *loop = dict_entry(thread->dict, "__asyncio_running_event_loop__");
    sink->begin(&root, sink->arg);
    if (hook != NULL && PyMethod_Check(hook))
        hold(sink, PyMethod_GET_SELF(hook), NULL, "running");
    else if (hook != NULL && PyCFunction_Check(hook))
        hold(sink, PyCFunction_GET_SELF(hook), NULL, "running");
    hold(sink, loop, NULL, "running");
    root.kind = ROOT_THREAD;
    sink->begin(&root, sink->arg);
    hold(sink, thread->context, NULL, "context variables");
    hold(sink, thread->dict, NULL, "thread state");
    for (_PyErr_StackItem *item = thread->exc_info; item != NULL; item = item->previous_item)
        hold(sink, item->exc_value, NULL, "exception being handled");
#if PY_VERSION_HEX >= 0x030C0000
    hold(sink, thread->current_exception, NULL, "exception being raised");
#else
    hold(sink, thread->curexc_value, NULL, "exception being raised");
    hold(sink, thread->curexc_traceback, NULL, "traceback being raised");
#endif
    hold(sink, thread->c_profileobj, NULL, "profile function");
    hold(sink, thread->c_traceobj, NULL, "trace function");
    hold(sink, thread->async_exc, NULL, "asynchronous exception");
    hold(sink, thread->async_gen_firstiter, NULL, "asynchronous generator hook");
    hold(sink, thread->async_gen_finalizer, NULL, "asynchronous generator hook");
}

static void
interpreter_roots(Sink *sink)
{
    sink->begin(&(Root){.kind = ROOT_INTERPRETER}, sink->arg);
    hold(sink, PyEval_GetBuiltins(), NULL, "builtins");
#if INTERNALS
    if (!internals_hold)
        return;
    PyInterpreterState *interpreter = PyThreadState_Get()->interp;
    struct atexit_state *at_exit = &interpreter->atexit;
    for (int i = 0; i < at_exit->ncallbacks; i++) {
        if (at_exit->callbacks[i] == NULL)
            continue;
        hold(sink, at_exit->callbacks[i]->func, NULL, "atexit");
        hold(sink, at_exit->callbacks[i]->args, NULL, "atexit arguments");
        hold(sink, at_exit->callbacks[i]->kwargs, NULL, "atexit arguments");
    }
    hold(sink, interpreter->before_forkers, NULL, "os.register_at_fork");
    hold(sink, interpreter->after_forkers_parent, NULL, "os.register_at_fork");
    hold(sink, interpreter->after_forkers_child, NULL, "os.register_at_fork");
    hold(sink, interpreter->dict, NULL, "interpreter state");
#if PY_VERSION_HEX >= 0x030C0000 && PY_VERSION_HEX < 0x030D0000 /* where what is interned stays for ever */
    hold(sink, interpreter->cached_objects.interned_strings, NULL, "interned strings");
#endif
#endif
}

#if INTERNALS
static int
text_begins(PyObject *text, PyObject *start)
{
    if (!is_text(text) || !is_text(start) || PyUnicode_GET_LENGTH(text) < PyUnicode_GET_LENGTH(start))
        return 0;
    for (Py_ssize_t i = 0; i < PyUnicode_GET_LENGTH(start); i++)
        if (PyUnicode_READ_CHAR(text, i) != PyUnicode_READ_CHAR(start, i))
            return 0;
    return 1;
}

static PyObject *
local_name(PyCodeObject *code, Py_ssize_t at)
{
    PyObject *names = code->co_localsplusnames;
    return at < PyTuple_GET_SIZE(names) ? PyTuple_GET_ITEM(names, at) : NULL;
}

/* Local variables are always in place. The value stack is, while the frame waits for a function written in Python
 * (stacktop says how far); while it runs or waits for C code only guess_stacks() can tell. */
static void
frame_roots(Sink *sink, _PyInterpreterFrame *frame, PyCodeObject *code, unsigned long thread)
{
    Root root = {ROOT_FRAME, code->co_qualname, code->co_filename, frame_line(frame, code), thread, 0, 0};
    sink->begin(&root, sink->arg);
    int stacked = frame->stacktop > code->co_nlocalsplus ? frame->stacktop : code->co_nlocalsplus;
    for (int i = 0; i < stacked; i++)
        hold(sink, frame->localsplus[i], i < code->co_nlocalsplus ? local_name(code, i) : NULL, "value stack");
    hold(sink, frame->f_locals, NULL, "locals");
    PyObject *function = frame_function(frame);
    if (function != NULL && PyFunction_Check(function)) /* the interpreter's own frame below __init__ leaves it unset */
        hold(sink, frame->f_globals, NULL, "globals");
    hold(sink, function, NULL, "function");
    hold(sink, (PyObject *)frame->frame_obj, NULL, "frame object");
    hold(sink, (PyObject *)code, NULL, "code");
    if (frame->owner == FRAME_OWNED_BY_GENERATOR)
        hold(sink, (PyObject *)_PyFrame_GetGenerator(frame), NULL, "generator");
}

typedef void (*EachFrame)(_PyInterpreterFrame *frame, PyCodeObject *code, unsigned long thread, void *arg);

static void
each_frame(PyObject *skip, EachFrame each, void *arg)
{
    PyThreadState *current = PyThreadState_Get(), *thread = PyInterpreterState_ThreadHead(current->interp);
    for (; thread != NULL; thread = PyThreadState_Next(thread)) {
        int skipping = thread == current;
        for (_PyInterpreterFrame *frame = thread_frame(thread); frame != NULL; frame = frame->previous) {
            PyCodeObject *code = frame_code(frame);
            if (code == NULL)
                continue;
            skipping = skipping && skip != NULL && text_begins(code->co_filename, skip);
            if (!skipping)
                each(frame, code, thread->native_thread_id, arg);
        }
    }
}

static void
sink_frame(_PyInterpreterFrame *frame, PyCodeObject *code, unsigned long thread, void *arg)
{
    frame_roots(arg, frame, code, thread);
}
#endif

/* Frames as the caller read them through the public interface: rows of one frame follow each other. */
static void
given_roots(Sink *sink)
{
    PyObject *before = NULL;
    for (Py_ssize_t i = 0; sink->locals != NULL && i < PyList_GET_SIZE(sink->locals); i++) {
        PyObject *row = PyList_GET_ITEM(sink->locals, i);
        PyObject *key = PyTuple_GET_ITEM(row, 1);
        if (key != before) {
            Root root = {ROOT_FRAME, PyTuple_GET_ITEM(key, 0), PyTuple_GET_ITEM(key, 1), 0, 0, 0, 0};
            root.line = (int)PyLong_AsLong(PyTuple_GET_ITEM(key, 2));
            root.thread = PyLong_AsUnsignedLong(PyTuple_GET_ITEM(key, 3));
            sink->begin(&root, sink->arg);
            before = key;
        }
        hold(sink, PyTuple_GET_ITEM(row, 0), PyTuple_GET_ITEM(row, 2), "local");
    }
}

static void
each_root(Sink *sink)
{
    PyThreadState *thread = PyInterpreterState_ThreadHead(PyThreadState_Get()->interp);
    module_roots(sink);
    for (; thread != NULL; thread = PyThreadState_Next(thread))
        thread_roots(sink, thread);
    interpreter_roots(sink);
#if INTERNALS
    if (internals_hold) {
        each_frame(sink->skip, sink_frame, sink);
        return;
    }
#endif
    given_roots(sink);
}

/* ---- census: types and containers, in one pass ------------------------------------------------------------------ */

typedef enum { SCOPE_TRACKED, SCOPE_CONTAINERS, SCOPE_ALL } Scope;

typedef struct {
    PyObject *op;
    Py_ssize_t length;
    size_t bytes;
    uint32_t row;
} Container;

enum { BATCH = 1024 };

typedef struct {
    Budget budget;
    Types types;
    Map seen; /* untracked objects that were counted; with SCOPE_ALL every object that was met */
    Scope scope;
    PyObject *met[BATCH]; /* looked at together, so that their cache misses overlap */
    size_t met_count;
    Region stack; /* untracked holders whose references are still to be read */
    size_t stack_count;
    Py_ssize_t min_length; /* containers at least this long are listed; -1 lists none */
    Region found;
    size_t found_count;
    int growable; /* list what can grow: buffers, too, but no tuples */
    struct Taking *taking; /* of take() alone */
} Census;

/* Tuples cannot grow; buffers can, and their entries are bytes. Small ones are left out: there may be very many. */
enum { SMALL_BUFFER = 1 << 16 };

static Py_ssize_t
growable_length(const Type *row, PyObject *op, size_t bytes)
{
    switch (row->kind) {
    case KIND_TUPLE: return -1;
    case KIND_BYTEARRAY: return Py_SIZE(op) < SMALL_BUFFER ? -1 : Py_SIZE(op);
    case KIND_INSTANCE: case KIND_OPAQUE: return row->size_of != NULL && bytes >= SMALL_BUFFER ? (Py_ssize_t)bytes : -1;
    default: return container_length(row->kind, op);
    }
}

static inline int
is_buffer(PyTypeObject *type)
{
    return type == &PyByteArray_Type || type == array_type;
}

/* ---- taking: living objects, by address or by type --------------------------------------------------------------- */

enum { MAX_TAKEN = 64, TAKE_BITS = 4096 };

/* An address is only believed when the walk meets an object there. */
typedef struct Taking {
    Types types;
    uintptr_t address[MAX_TAKEN];
    PyObject *found[MAX_TAKEN];
    int count, left;
    uint8_t near[TAKE_BITS / 8];
    PyObject *names;      /* tuple of str: type names as a census tells them */
    PyObject **of_type;   /* the first `limit` of these types, then a ring of the last `limit` */
    size_t limit, seen;
} Taking;

static void
take_meet(Taking *taking, PyObject *op)
{
    size_t bit = ((uintptr_t)op >> 4) % TAKE_BITS;
    if (!(taking->near[bit / 8] >> bit % 8 & 1))
        return;
    for (int i = 0; i < taking->count; i++)
        if (taking->address[i] == (uintptr_t)op && taking->found[i] == NULL && Py_REFCNT(op) > 0) {
            taking->found[i] = op;
            taking->left--;
        }
}

static void
census_count(Census *census, uint32_t row_number, PyObject *op)
{
    Type *row = type_row(&census->types, row_number);
    if (census->taking != NULL)
        take_meet(census->taking, op);
    size_t bytes = shallow_bytes(row, op);
    row->count++;
    row->bytes += bytes;
    if (census->min_length < 0)
        return;
    Py_ssize_t length = census->growable ? growable_length(row, op, bytes) : container_length(row->kind, op);
    if (length < census->min_length)
        return;
    if (region_need(&census->budget, &census->found, (census->found_count + 1) * sizeof(Container)) == 0)
        ((Container *)census->found.data)[census->found_count++] = (Container){op, length, bytes, row_number};
}

/* An object that some other object holds: count it here unless the collector's lists bring it anyway. */
static void
census_meet(Census *census, PyObject *op)
{
    if (census->scope == SCOPE_ALL && !map_first_sight(&census->seen, op))
        return;
    int collected = PyType_IS_GC(Py_TYPE(op)) && PyObject_IS_GC(op);
    if (collected && is_tracked(op))
        return;
    int wanted = collected || (census->growable && is_buffer(Py_TYPE(op)));
    if (census->scope == SCOPE_CONTAINERS && (!wanted || !map_first_sight(&census->seen, op)))
        return;
    uint32_t row = types_find(&census->types, Py_TYPE(op));
    census_count(census, row, op);
    if (!collected && type_row(&census->types, row)->kind < KIND_CODE)
        return;
    if (region_need(&census->budget, &census->stack, (census->stack_count + 1) * sizeof(PyObject *)) == 0)
        ((PyObject **)census->stack.data)[census->stack_count++] = op;
}

static void
census_flush(Census *census)
{
    size_t count = census->met_count;
    census->met_count = 0;
    for (size_t i = 0; i < count; i++) {
        if (i + 8 < count)
            __builtin_prefetch(census->met[i + 8]);
        census_meet(census, census->met[i]);
    }
}

static int
census_reference(PyObject *op, void *arg)
{
    Census *census = arg;
    census->met[census->met_count++] = op;
    if (census->met_count == BATCH)
        census_flush(census);
    return census->budget.failed;
}

static int
census_object(PyObject *op, void *arg)
{
    Census *census = arg;
    uint32_t row = types_find(&census->types, Py_TYPE(op));
    if (census->budget.failed)
        return 0;
    census_count(census, row, op);
    type_row(&census->types, row)->tracked++;
    if (census->scope != SCOPE_TRACKED) {
        Type copy = *type_row(&census->types, row); /* a flush inside may move the rows */
        visit_references(&copy, op, census_reference, census);
    }
    return !census->budget.failed;
}

static void
census_begin(const Root *root, void *arg)
{
    (void)root, (void)arg;
}

static void
census_hold(PyObject *op, PyObject *name, const char *label, void *arg)
{
    (void)name, (void)label;
    census_reference(op, arg);
}

static void
census_run(Census *census, PyObject *skip, PyObject *locals)
{
    Sink sink = {census_begin, census_hold, census, skip, locals};
    if (types_init(&census->types, &census->budget) < 0
            || map_init(&census->seen, &census->budget, GRANULES / 8) < 0)
        return;
    each_tracked(census_object, census);
    if (census->scope != SCOPE_TRACKED)
        each_root(&sink); /* a local variable may be all that holds an untracked dict */
    do {
        census_flush(census);
        while (census->stack_count > 0 && !census->budget.failed) {
            PyObject *op = ((PyObject **)census->stack.data)[--census->stack_count];
            uint32_t row = types_find(&census->types, Py_TYPE(op));
            Type copy = *type_row(&census->types, row);
            visit_references(&copy, op, census_reference, census);
        }
    } while (census->met_count > 0 && !census->budget.failed);
}

static int
longer_first(const void *a, const void *b)
{
    Py_ssize_t x = ((const Container *)a)->length, y = ((const Container *)b)->length;
    return (x < y) - (x > y);
}

static void
census_write(Census *census, Out *out, size_t max_containers)
{
    if (census->budget.failed) {
        out_format(out, "{\"error\":\"memory\",\"used\":%zu}", census->budget.used);
        return;
    }
    out_format(out, "{");
    out_types(out, &census->types);
    out_format(out, ",\"containers\":[");
    Container *found = census->found.data;
    if (census->found_count)
        qsort(found, census->found_count, sizeof(Container), longer_first);
    for (size_t i = 0; i < census->found_count && i < max_containers; i++) {
        out_format(out, "%s[%llu,\"", i ? "," : "", (unsigned long long)(uintptr_t)found[i].op);
        out_type_name(out, type_row(&census->types, found[i].row)->type);
        out_format(out, "\",%lld,%llu]", (long long)found[i].length, (unsigned long long)found[i].bytes);
    }
    out_format(out, "],\"found\":%zu,\"used\":%zu}", census->found_count, census->budget.used);
}

static void
census_free(Census *census)
{
    types_free(&census->types);
    map_free(&census->seen);
    region_free(&census->budget, &census->stack);
    region_free(&census->budget, &census->found);
}

static int
take_named(Taking *taking, PyTypeObject *type)
{
    Out out = {.budget.max = 1 << 20};
    int named = 0;
    out_type_name(&out, type);
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(taking->names) && !named && !out.budget.failed; i++) {
        PyObject *name = PyTuple_GET_ITEM(taking->names, i);
        named = is_text(name) && (size_t)PyUnicode_GET_LENGTH(name) == out.length;
        for (size_t at = 0; named && at < out.length; at++)
            named = PyUnicode_READ_CHAR(name, (Py_ssize_t)at) == ((unsigned char *)out.text.data)[at];
    }
    region_free(&out.budget, &out.text);
    return named;
}

/* `tracked` of a row tells here whether the type was compared with the names, and `count` what came of it. */
static int
take_tracked(PyObject *op, void *arg)
{
    Taking *taking = arg;
    take_meet(taking, op);
    if (taking->limit == 0)
        return taking->left > 0;
    Type *row = type_row(&taking->types, types_find(&taking->types, Py_TYPE(op)));
    if (!row->tracked) {
        row->tracked = 1;
        row->count = (uint64_t)take_named(taking, Py_TYPE(op));
    }
    if (row->count && Py_REFCNT(op) > 0) {
        size_t at = taking->seen < taking->limit ? taking->seen : taking->limit + taking->seen % taking->limit;
        taking->of_type[at] = op;
        taking->seen++;
    }
    return !taking->types.budget->failed;
}

/* First what the collector lists; all that is held only when an address is still missing. */
static void
take_run(Taking *taking, Census *census, PyObject *skip, PyObject *locals)
{
    taking->types.budget = &census->budget;
    if (types_init(&taking->types, &census->budget) < 0)
        return;
    if (taking->left > 0 || taking->limit > 0)
        each_tracked(take_tracked, taking);
    if (taking->left > 0) {
        census->taking = taking;
        census_run(census, skip, locals);
        census_free(census);
    }
    types_free(&taking->types);
}

/* ---- walk: every object a number, every reference an edge ------------------------------------------------------- */

#define NONE UINT32_MAX

typedef struct {
    uint32_t source, edge, target;
} Guess;

typedef struct {
    Budget budget;
    Types types;
    Map numbers; /* address to number + 1 */
    Region nodes, rows, sizes, offsets, edges; /* PyObject*, u32, u64, u32, u32: out-edges in CSR */
    uint32_t count, tracked;
    size_t edge_count;
    PyObject *met[BATCH];
    size_t met_count;
    Region roots, holds, guesses;
    uint32_t root_count, hold_count, guess_count;
    Region via; /* u32: the node before, on the shortest path from a root of the best tier; NONE when unreachable */
    Region pre, vertex, idom, retained; /* dominators, in depth-first order from 1 */
    Region in_offsets, in_edges; /* in-edges in CSR, in depth-first order */
    uint32_t reached, garbage_root;
    uint32_t late; /* threading._active: what it holds is better reached through the threads' frames; NONE: no such */
    int request; /* file descriptor of the asker: a hang-up ends the child */
    int values;
    double walk_s, reach_s, dominate_s;
} Walk;

#define NODES(w) ((PyObject **)(w)->nodes.data)
#define U32(region) ((uint32_t *)(region).data)
#define U64(region) ((uint64_t *)(region).data)
#define ROOT(w, i) ((Root *)(w)->roots.data + (i))
#define HOLD(w, i) ((Hold *)(w)->holds.data + (i))

/* Number everything that was met; with `link`, each becomes an edge of the object being walked. */
static void
walk_flush(Walk *w, int link)
{
    size_t met = w->met_count;
    uint32_t *places[BATCH];
    w->met_count = 0;
    if (w->count + met >= NONE - 1 || w->edge_count + met >= NONE)
        w->budget.failed = 1;
    if (region_need(&w->budget, &w->nodes, (w->count + met) * sizeof(PyObject *)) < 0
            || (link && region_need(&w->budget, &w->edges, (w->edge_count + met) * sizeof(uint32_t)) < 0))
        return;
    for (size_t i = 0; i < met; i++) {
        places[i] = map_number(&w->numbers, w->met[i], 1);
        if (places[i] == NULL)
            return;
        __builtin_prefetch(places[i], 1);
    }
    uint32_t *edges = U32(w->edges) + w->edge_count;
    for (size_t i = 0; i < met; i++) {
        if (*places[i] == 0) {
            NODES(w)[w->count] = w->met[i];
            *places[i] = ++w->count;
        }
        if (link)
            edges[i] = *places[i] - 1;
    }
    w->edge_count += link ? met : 0;
}

static int
walk_reference(PyObject *op, void *arg)
{
    Walk *w = arg;
    w->met[w->met_count++] = op;
    if (w->met_count == BATCH)
        walk_flush(w, 1);
    return w->budget.failed;
}

static int
walk_tracked(PyObject *op, void *arg)
{
    Walk *w = arg;
    w->met[w->met_count++] = op;
    if (w->met_count == BATCH)
        walk_flush(w, 0);
    return !w->budget.failed;
}

/* The number of an address, or NONE. Any word may be asked for: nothing is read through it. */
static uint32_t
walk_find(Walk *w, const void *address)
{
    uint32_t *place = ((uintptr_t)address & 7) || address == NULL ? NULL : map_number(&w->numbers, address, 0);
    if (place == NULL || *place == 0 || NODES(w)[*place - 1] != address)
        return NONE;
    return *place - 1;
}

static void
walk_begin_root(const Root *root, void *arg)
{
    Walk *w = arg;
    if (region_need(&w->budget, &w->roots, (w->root_count + 1) * sizeof(Root)) < 0)
        return;
    *ROOT(w, w->root_count) = *root;
    ROOT(w, w->root_count)->first = w->hold_count;
    ROOT(w, w->root_count++)->count = 0;
}

static void
walk_hold_node(Walk *w, uint32_t node, PyObject *name, const char *label)
{
    if (w->root_count == 0 || region_need(&w->budget, &w->holds, (w->hold_count + 1) * sizeof(Hold)) < 0)
        return;
    *HOLD(w, w->hold_count++) = (Hold){node, name, label};
    ROOT(w, w->root_count - 1)->count++;
}

static void
walk_hold(PyObject *op, PyObject *name, const char *label, void *arg)
{
    Walk *w = arg;
    walk_tracked(op, w);
    walk_flush(w, 0);
    uint32_t node = w->budget.failed ? NONE : walk_find(w, op);
    if (node != NONE)
        walk_hold_node(w, node, name, label);
}

/* What an opaque object may hold: the words of its struct that are addresses of collected objects. A word may be left
 * over, or borrowed, so a guess is an edge to the object itself until reach_guesses() finds that nothing else reaches
 * the target; and it never counts as a reference, so it cannot make something look like garbage. A type with its own
 * tp_alloc may give an object less room than tp_basicsize says. */
static void
guess_references(Walk *w, uint32_t source, PyObject *op, PyTypeObject *type)
{
    if (type->tp_alloc != PyType_GenericAlloc)
        return;
    walk_flush(w, 1);
    size_t words = (size_t)type->tp_basicsize / sizeof(void *);
    for (size_t i = sizeof(PyObject) / sizeof(void *); i < words && i < 512; i++) {
        uint32_t node = walk_find(w, ((void **)op)[i]);
        if (node >= w->tracked || node == source
                || region_need(&w->budget, &w->guesses, (w->guess_count + 1) * sizeof(Guess)) < 0
                || region_need(&w->budget, &w->edges, (w->edge_count + 1) * sizeof(uint32_t)) < 0)
            continue;
        ((Guess *)w->guesses.data)[w->guess_count++] = (Guess){source, (uint32_t)w->edge_count, node};
        U32(w->edges)[w->edge_count++] = source;
    }
}

#if INTERNALS
/* The value stack of a frame that runs, or waits for C code: its end is in a register or on the C stack, and words
 * above it are left over. A word counts when it is the address of an object that we know and that nothing else
 * reaches: what is held elsewhere too must not seem to depend on a stale word. */
static void
guess_stack(_PyInterpreterFrame *frame, PyCodeObject *code, unsigned long thread, void *arg)
{
    Walk *w = arg;
    if (frame->stacktop >= 0)
        return;
    walk_begin_root(&(Root){ROOT_STACK, code->co_qualname, code->co_filename, frame_line(frame, code), thread, 0, 0}, w);
    for (int i = code->co_nlocalsplus; i < code->co_nlocalsplus + code->co_stacksize; i++) {
        uint32_t node = walk_find(w, frame->localsplus[i]);
        if (node != NONE && U32(w->via)[node] == NONE)
            walk_hold_node(w, node, NULL, "value stack");
    }
}
#endif

static void
leave_when_alone(int request)
{
    struct pollfd asker = {.fd = request, .events = 0};
    if (request >= 0 && poll(&asker, 1, 0) > 0 && (asker.revents & (POLLHUP | POLLERR | POLLNVAL)))
        _exit(0);
}

static int
walk_object(Walk *w, uint32_t i)
{
    size_t rows = ((size_t)i + 2) * sizeof(uint32_t);
    if (region_need(&w->budget, &w->rows, rows) < 0 || region_need(&w->budget, &w->offsets, rows) < 0
            || region_need(&w->budget, &w->sizes, ((size_t)i + 2) * sizeof(uint64_t)) < 0)
        return -1;
    PyObject *op = NODES(w)[i];
    uint32_t number = types_find(&w->types, Py_TYPE(op));
    if (w->budget.failed)
        return -1;
    Type *row = type_row(&w->types, number);
    U32(w->rows)[i] = number;
    U32(w->offsets)[i] = (uint32_t)(w->edge_count + w->met_count);
    U64(w->sizes)[i] = shallow_bytes(row, op);
    row->count++;
    row->bytes += U64(w->sizes)[i];
    row->tracked += i < w->tracked;
    visit_references(row, op, walk_reference, w);
    if (row->kind == KIND_OPAQUE
            || (row->kind == KIND_INSTANCE && (row->size_of != NULL || (PyObject_IS_GC(op) && !is_tracked(op)))))
        guess_references(w, i, op, row->type);
    return w->budget.failed ? -1 : 0;
}

static int
walk_heap(Walk *w, Sink *sink)
{
    double start = now_s();
    if (types_init(&w->types, &w->budget) < 0 || map_init(&w->numbers, &w->budget, GRANULES * sizeof(uint32_t)) < 0)
        return -1;
    each_tracked(walk_tracked, w);
    walk_flush(w, 0);
    w->tracked = w->count;
    each_root(sink);
    for (uint32_t i = 0; !w->budget.failed; i++) {
        if (i == w->count)
            walk_flush(w, 1);
        if (i == w->count)
            break;
        if (i + 12 < w->count)
            __builtin_prefetch(NODES(w)[i + 12]);
        if ((i & 0xFFFF) == 0)
            leave_when_alone(w->request);
        if (walk_object(w, i) < 0)
            return -1;
    }
    w->walk_s = now_s() - start;
    return w->budget.failed ? -1 : 0;
}

/* ---- reach: shortest paths, C roots, garbage -------------------------------------------------------------------- */

static uint32_t
edges_end(Walk *w, uint32_t node)
{
    return node + 1 < w->count ? U32(w->offsets)[node + 1] : (uint32_t)w->edge_count;
}

/* Breadth first from everything that this root holds and nobody reached before; `queue` has room for every node. */
static void
reach_from(Walk *w, uint32_t *queue, uint32_t head, uint32_t tail)
{
    uint32_t *via = U32(w->via), *edges = U32(w->edges), *offsets = U32(w->offsets);
    while (head < tail) {
        uint32_t node = queue[head++], end = edges_end(w, node);
        if (node == w->late)
            continue;
        if (head + 4 < tail)
            __builtin_prefetch(&edges[offsets[queue[head + 4]]]);
        for (uint32_t e = offsets[node]; e < end; e++) {
            if (via[edges[e]] == NONE) {
                via[edges[e]] = node;
                queue[tail++] = edges[e];
            }
        }
    }
}

static void
reach_tier(Walk *w, uint32_t *queue, int tier)
{
    uint32_t tail = 0;
    for (uint32_t r = 0; r < w->root_count; r++) {
        if (root_tiers[ROOT(w, r)->kind] != tier)
            continue;
        for (uint32_t h = ROOT(w, r)->first; h < ROOT(w, r)->first + ROOT(w, r)->count; h++) {
            uint32_t node = HOLD(w, h)->node;
            if (U32(w->via)[node] == NONE) {
                U32(w->via)[node] = w->count + r;
                queue[tail++] = node;
            }
        }
    }
    reach_from(w, queue, 0, tail);
}

/* Believe a guess when its source is reached and nothing else reaches its target; one may lead to the next. */
static void
reach_guesses(Walk *w, uint32_t *queue)
{
    Guess *guesses = w->guesses.data;
    for (int again = 1; again;) {
        again = 0;
        for (uint32_t i = 0; i < w->guess_count; i++) {
            if (U32(w->via)[guesses[i].source] == NONE || U32(w->via)[guesses[i].target] != NONE)
                continue;
            U32(w->edges)[guesses[i].edge] = guesses[i].target;
            U32(w->via)[guesses[i].target] = guesses[i].source;
            queue[0] = guesses[i].target;
            reach_from(w, queue, 0, 1);
            again = 1;
        }
    }
}

/* What no named root reaches is held by C code, or garbage. An object with more references than we can see is held by
 * something that we cannot see. This is the collector's own reasoning, so its answer is the collector's too. */
static int
reach_unseen(Walk *w, uint32_t *queue)
{
    Region known = {0};
    uint32_t *via = U32(w->via), *edges = U32(w->edges), *offsets = U32(w->offsets);
    if (region_need(&w->budget, &known, ((size_t)w->count + 1) * sizeof(uint32_t)) < 0)
        return -1;
    for (uint32_t node = 0; node < w->count; node++) {
        if (via[node] != NONE || type_row(&w->types, U32(w->rows)[node])->kind == KIND_OPAQUE)
            continue;
        for (uint32_t e = offsets[node], end = edges_end(w, node); e < end; e++)
            U32(known)[edges[e]]++;
    }
    /* First what nobody known refers to: a path through it tells more than that C code holds its parts, too. */
    for (int alone = 1; alone >= 0; alone--) {
        walk_begin_root(&(Root){.kind = ROOT_C}, w);
        for (uint32_t node = 0; node < w->count; node++) {
            PyObject *op = NODES(w)[node];
            if (via[node] == NONE && (!alone || U32(known)[node] == 0)
                    && (is_immortal(op) || Py_REFCNT(op) > (Py_ssize_t)U32(known)[node]))
                walk_hold_node(w, node, NULL, "C code");
        }
        reach_tier(w, queue, TIER_GUESS);
    }
    region_free(&w->budget, &known);
    return w->budget.failed ? -1 : 0;
}

/* Garbage hangs below a root of its own, so that it has dominators and retained sizes like everything else. What it
 * refers to among the living does not live by it: those edges are turned to garbage's root, where they mean nothing. */
static void
reach_garbage(Walk *w, uint32_t *queue)
{
    w->garbage_root = w->root_count;
    uint32_t nowhere = w->count + w->garbage_root, *edges = U32(w->edges), *offsets = U32(w->offsets);
    walk_begin_root(&(Root){.kind = ROOT_GARBAGE}, w);
    if (region_need(&w->budget, &w->via, ((size_t)nowhere + 1) * sizeof(uint32_t)) < 0)
        return;
    uint32_t *via = U32(w->via);
    via[nowhere] = 0; /* seen: nobody goes on from there */
    for (uint32_t node = 0; node < w->count; node++)
        for (uint32_t e = offsets[node], end = edges_end(w, node); via[node] == NONE && e < end; e++)
            edges[e] = via[edges[e]] == NONE ? edges[e] : nowhere;
    for (uint32_t node = 0; node < w->count && !w->budget.failed; node++) {
        if (via[node] != NONE)
            continue;
        walk_hold_node(w, node, NULL, "cyclic garbage");
        via[node] = w->count + w->garbage_root;
        queue[0] = node;
        reach_from(w, queue, 0, 1);
    }
}

/* Roots follow the objects as nodes, and one node above all follows the roots. */
static int
append_roots(Walk *w)
{
    size_t nodes = (size_t)w->count + w->root_count + 2;
    if (region_need(&w->budget, &w->offsets, nodes * sizeof(uint32_t)) < 0
            || region_need(&w->budget, &w->sizes, nodes * sizeof(uint64_t)) < 0
            || region_need(&w->budget, &w->edges,
                           (w->edge_count + w->hold_count + w->root_count) * sizeof(uint32_t)) < 0)
        return -1;
    uint32_t *edges = U32(w->edges), *offsets = U32(w->offsets) + w->count;
    for (uint32_t r = 0; r < w->root_count; r++) {
        offsets[r] = (uint32_t)w->edge_count;
        U64(w->sizes)[w->count + r] = 0;
        for (uint32_t h = 0; h < ROOT(w, r)->count; h++)
            edges[w->edge_count++] = HOLD(w, ROOT(w, r)->first + h)->node;
    }
    offsets[w->root_count] = (uint32_t)w->edge_count;
    U64(w->sizes)[w->count + w->root_count] = 0;
    for (uint32_t r = 0; r < w->root_count; r++)
        edges[w->edge_count++] = w->count + r;
    offsets[w->root_count + 1] = (uint32_t)w->edge_count;
    return 0;
}

static uint32_t
active_threads(Walk *w)
{
    PyObject *threading = dict_entry(PyImport_GetModuleDict(), "threading");
    PyObject *scope = threading != NULL && PyModule_Check(threading) ? PyModule_GetDict(threading) : NULL;
    return walk_find(w, dict_entry(scope, "_active"));
}

static void
reach_late(Walk *w, uint32_t *queue)
{
    uint32_t late = w->late;
    w->late = NONE;
    if (late == NONE || U32(w->via)[late] == NONE)
        return;
    queue[0] = late;
    reach_from(w, queue, 0, 1);
}

static int
reach(Walk *w, Sink *sink)
{
    double start = now_s();
    Region queue = {0};
    size_t bytes = ((size_t)w->count + 1) * sizeof(uint32_t);
    if (region_need(&w->budget, &queue, bytes) < 0 || region_need(&w->budget, &w->via, bytes) < 0)
        return -1;
    memset(w->via.data, 0xFF, bytes);
    w->late = active_threads(w);
    reach_tier(w, queue.data, TIER_NAMED);
    reach_tier(w, queue.data, TIER_FRAME);
    reach_late(w, queue.data);
    reach_guesses(w, queue.data);
#if INTERNALS
    if (internals_hold)
        each_frame(sink->skip, guess_stack, w);
#endif
    reach_tier(w, queue.data, TIER_GUESS);
    leave_when_alone(w->request);
    if (reach_unseen(w, queue.data) < 0)
        return -1;
    reach_garbage(w, queue.data);
    region_free(&w->budget, &queue);
    w->reach_s = now_s() - start;
    return w->budget.failed ? -1 : append_roots(w);
}

/* ---- dominators: semi-NCA (Georgiadis 2005) and retained sizes -------------------------------------------------- */

/* A graph in CSR. Depth-first numbers run from 1 (the root) to `reached`; results are indexed by them. */
typedef struct {
    Budget *budget;
    uint32_t nodes, root;
    const uint32_t *offsets, *edges; /* offsets has nodes + 1 entries */
    const uint64_t *sizes;
    uint32_t reached;
    Region pre, vertex;          /* node to number (0: unreachable), number to node */
    Region in_offsets, in_edges; /* predecessors of numbers, as numbers */
    Region idom, retained;       /* by number */
} Flow;

enum { AHEAD = 16 }; /* edges whose targets are fetched before their turn */

static int
flow_number(Flow *flow, uint32_t *parent, uint32_t *next, uint32_t *stack)
{
    uint32_t *pre = U32(flow->pre), *vertex = U32(flow->vertex), depth = 0, number = 1;
    pre[flow->root] = 1;
    vertex[1] = flow->root;
    parent[1] = 0;
    next[1] = flow->offsets[flow->root];
    stack[depth++] = 1;
    while (depth > 0) {
        uint32_t at = stack[depth - 1];
        if (next[at] == flow->offsets[vertex[at] + 1]) {
            depth--;
            continue;
        }
        uint32_t target = flow->edges[next[at]++];
        if (pre[target] != 0)
            continue;
        pre[target] = ++number;
        vertex[number] = target;
        parent[number] = at;
        next[number] = flow->offsets[target];
        stack[depth++] = number;
    }
    return (int)((flow->reached = number) == 0);
}

/* In the nodes' own order, so that offsets and edges are read straight through and only `pre` is jumped about in. */
static int
flow_predecessors(Flow *flow)
{
    uint32_t n = flow->reached, *pre = U32(flow->pre), total = flow->offsets[flow->nodes];
    const uint32_t *edges = flow->edges;
    if (region_need(flow->budget, &flow->in_offsets, ((size_t)n + 3) * sizeof(uint32_t)) < 0)
        return -1;
    uint32_t *in = U32(flow->in_offsets);
    for (uint32_t node = 0; node < flow->nodes; node++)
        for (uint32_t e = flow->offsets[node]; pre[node] != 0 && e < flow->offsets[node + 1]; e++) {
            __builtin_prefetch(&pre[edges[e + AHEAD < total ? e + AHEAD : e]]);
            __builtin_prefetch(&in[pre[edges[e + AHEAD / 2 < total ? e + AHEAD / 2 : e]] + 2], 1);
            in[pre[edges[e]] + 2]++;
        }
    for (uint32_t v = 1; v <= n; v++)
        in[v + 2] += in[v + 1];
    if (region_need(flow->budget, &flow->in_edges, ((size_t)in[n + 2] + 1) * sizeof(uint32_t)) < 0)
        return -1;
    for (uint32_t node = 0; node < flow->nodes; node++)
        for (uint32_t e = flow->offsets[node]; pre[node] != 0 && e < flow->offsets[node + 1]; e++) {
            __builtin_prefetch(&pre[edges[e + AHEAD < total ? e + AHEAD : e]]);
            __builtin_prefetch(&in[pre[edges[e + AHEAD / 2 < total ? e + AHEAD / 2 : e]] + 1], 1);
            U32(flow->in_edges)[in[pre[edges[e]] + 1]++] = pre[node];
        }
    return 0;
}

/* The least semidominator on the way from v up to the last linked number, with path compression. */
static uint32_t
flow_evaluate(uint32_t v, uint32_t last, uint32_t *ancestor, uint32_t *least, uint32_t *stack)
{
    uint32_t depth = 0;
    if (ancestor[v] < last)
        return least[v];
    for (; ancestor[v] >= last; v = ancestor[v])
        stack[depth++] = v;
    uint32_t best = least[v], top = ancestor[v];
    while (depth > 0) {
        v = stack[--depth];
        ancestor[v] = top;
        if (best < least[v])
            least[v] = best;
        else
            best = least[v];
    }
    return best;
}

static void
flow_dominate(Flow *flow, uint32_t *ancestor, uint32_t *least, uint32_t *semi, uint32_t *stack)
{
    uint32_t n = flow->reached, *idom = U32(flow->idom), *in = U32(flow->in_offsets), *from = U32(flow->in_edges);
    for (uint32_t v = 1; v <= n; v++) {
        idom[v] = ancestor[v];
        least[v] = v;
    }
    for (uint32_t w = n; w >= 2; w--) {
        uint32_t best = idom[w];
        for (uint32_t e = in[w]; e < in[w + 1]; e++) {
            uint32_t soon = from[e >= AHEAD ? e - AHEAD : 0];
            __builtin_prefetch(&ancestor[soon]);
            __builtin_prefetch(&least[soon]);
            uint32_t s = flow_evaluate(from[e], w + 1, ancestor, least, stack);
            if (s < best)
                best = s;
        }
        semi[w] = least[w] = best;
    }
    for (uint32_t w = 2; w <= n; w++)
        while (idom[w] > semi[w])
            idom[w] = idom[idom[w]];
}

static int
flow_run(Flow *flow)
{
    Region work[4] = {{0}};
    Budget *budget = flow->budget;
    size_t bytes = ((size_t)flow->nodes + 2) * sizeof(uint32_t);
    Region *needed[] = {&flow->pre, &flow->vertex, &flow->idom, &work[0], &work[1], &work[2], &work[3]};
    int result = -1;
    for (size_t i = 0; i < sizeof(needed) / sizeof(needed[0]); i++)
        if (region_need(budget, needed[i], bytes) < 0)
            goto done;
    uint32_t *ancestor = work[0].data, *least = work[1].data, *semi = work[2].data, *stack = work[3].data;
    if (flow_number(flow, ancestor, least, stack) != 0 || flow_predecessors(flow) < 0)
        goto done;
    flow_dominate(flow, ancestor, least, semi, stack);
    if (region_need(budget, &flow->retained, ((size_t)flow->reached + 2) * sizeof(uint64_t)) < 0)
        goto done;
    uint64_t *retained = U64(flow->retained);
    for (uint32_t v = 1; v <= flow->reached; v++)
        retained[v] = flow->sizes[U32(flow->vertex)[v]];
    for (uint32_t v = flow->reached; v >= 2; v--)
        retained[U32(flow->idom)[v]] += retained[v];
    result = 0;
done:
    for (int i = 0; i < 4; i++)
        region_free(budget, &work[i]);
    return result;
}

static void
flow_free(Flow *flow)
{
    Region *all[] = {&flow->pre, &flow->vertex, &flow->in_offsets, &flow->in_edges, &flow->idom, &flow->retained};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        region_free(flow->budget, all[i]);
}

/* ---- names: how one object holds another ------------------------------------------------------------------------ */

typedef struct {
    const char *kind;  /* attribute, namespace, key, index, element, local, closure, cell, field, held */
    PyObject *name;    /* str, or NULL */
    const char *label; /* when there is no str */
    PyObject *key;     /* of a dict: its type is told, its value only on request */
    Py_ssize_t index;  /* -1: none */
} Edge;

typedef struct {
    PyObject *child, *after; /* what was visited just after the child: its key, in a context's mapping */
    Py_ssize_t seen, at;
} Finder;

static int
find_child(PyObject *op, void *arg)
{
    Finder *finder = arg;
    if (finder->at >= 0 && finder->seen == finder->at + 1)
        finder->after = op;
    if (op == finder->child && finder->at < 0)
        finder->at = finder->seen;
    finder->seen++;
    return 0;
}

/* May a dict key be shown? Attribute names may; so may a key that reads like a name and that the program's own source
 * interned. Everything else could be data. */
static int
is_name(PyObject *key)
{
    if (!PyUnicode_CheckExact(key) || !is_text(key) || !PyUnicode_CHECK_INTERNED(key))
        return 0;
    Py_ssize_t length = PyUnicode_GET_LENGTH(key);
    for (Py_ssize_t i = 0; i < length; i++) {
        Py_UCS4 c = PyUnicode_READ_CHAR(key, i);
        int letter = (c | 0x20) >= 'a' && (c | 0x20) <= 'z';
        if (!(letter || c == '_' || (i > 0 && c >= '0' && c <= '9')))
            return 0;
    }
    return length > 1 && length <= 64; /* Python itself interns single characters: they may be data */
}

static Edge
edge_in_dict(PyObject *dict, PyObject *child, int namespace)
{
    PyObject *key, *value;
    Py_ssize_t at = 0;
    while (PyDict_Next(dict, &at, &key, &value)) {
        if (value == child && namespace && PyUnicode_Check(key))
            return (Edge){"attribute", key, NULL, NULL, -1};
        if (value == child)
            return (Edge){"key", is_name(key) ? key : NULL, NULL, key, -1};
    }
    at = 0;
    while (PyDict_Next(dict, &at, &key, &value))
        if (key == child)
            return (Edge){"held", NULL, "as a key", NULL, -1};
    return (Edge){0};
}

static Edge
edge_in_sequence(PyObject *child, Py_ssize_t count, PyObject **items)
{
    for (Py_ssize_t i = 0; i < count; i++)
        if (items[i] == child)
            return (Edge){"index", NULL, NULL, NULL, i};
    return (Edge){0};
}

static Edge
edge_in_function(PyFunctionObject *function, PyObject *child)
{
    struct { PyObject *value; const char *name; } fields[] = {
        {function->func_dict, "__dict__"}, {function->func_globals, "__globals__"},
        {function->func_closure, "__closure__"}, {function->func_defaults, "__defaults__"},
        {function->func_kwdefaults, "__kwdefaults__"}, {function->func_code, "__code__"},
        {function->func_annotations, "__annotations__"}, {function->func_builtins, "__builtins__"},
        {function->func_module, "__module__"}, {function->func_doc, "__doc__"},
    };
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
        if (fields[i].value == child)
            return (Edge){i < 2 ? "namespace" : "attribute", NULL, fields[i].name, NULL, -1};
    return (Edge){0};
}

static Edge
edge_in_exception(PyBaseExceptionObject *error, PyObject *child)
{
    struct { PyObject *value; const char *name; } fields[] = {
        {error->traceback, "__traceback__"}, {error->context, "__context__"}, {error->cause, "__cause__"},
        {error->args, "args"}, {error->dict, "__dict__"},
    };
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
        if (fields[i].value == child)
            return (Edge){i == 4 ? "namespace" : "attribute", NULL, fields[i].name, NULL, -1};
    return (Edge){0};
}

static Edge
edge_in_code(PyCodeObject *code, PyObject *child)
{
    if (code->co_consts == child)
        return (Edge){"attribute", NULL, "co_consts", NULL, -1};
    return code->co_names == child ? (Edge){"attribute", NULL, "co_names", NULL, -1} : (Edge){0};
}

static Edge
edge_in_type(PyTypeObject *type, PyObject *child)
{
    if (type->tp_dict == child)
        return (Edge){"namespace", NULL, "__dict__", NULL, -1};
    if (type->tp_bases == child)
        return (Edge){"attribute", NULL, "__bases__", NULL, -1};
    if (type->tp_mro == child)
        return (Edge){"attribute", NULL, "__mro__", NULL, -1};
    return (PyObject *)type->tp_base == child ? (Edge){"attribute", NULL, "__base__", NULL, -1} : (Edge){0};
}

#if INTERNALS
static Edge
edge_in_frame(_PyInterpreterFrame *frame, PyObject *child)
{
    PyCodeObject *code = frame ? frame_code(frame) : NULL;
    if (code == NULL)
        return (Edge){0};
    for (int i = 0; i < code->co_nlocalsplus; i++)
        if (frame->localsplus[i] == child)
            return (Edge){"local", local_name(code, i), NULL, NULL, -1};
    for (int i = code->co_nlocalsplus; i < frame->stacktop; i++)
        if (frame->localsplus[i] == child)
            return (Edge){"held", NULL, "value stack", NULL, -1};
    return frame->f_locals == child ? (Edge){"namespace", NULL, "locals", NULL, -1} : (Edge){0};
}

static Edge
edge_inline(PyObject *op, PyObject *child)
{
    PyDictValues *values = inline_values(op);
    PyDictKeysObject *keys = values ? ((PyHeapTypeObject *)Py_TYPE(op))->ht_cached_keys : NULL;
    if (keys == NULL || !DK_IS_UNICODE(keys))
        return (Edge){0};
    PyDictUnicodeEntry *entries = DK_UNICODE_ENTRIES(keys);
    for (Py_ssize_t i = 0; i < keys->dk_nentries; i++)
        if (values->values[i] == child)
            return (Edge){"attribute", entries[i].me_key, NULL, NULL, -1};
    return (Edge){0};
}
#endif

/* Slots, and the members that C types declare. */
static Edge
edge_in_members(PyObject *op, PyObject *child)
{
    for (PyTypeObject *type = Py_TYPE(op); type != NULL; type = type->tp_base) {
        for (PyMemberDef *member = type->tp_members; member != NULL && member->name != NULL; member++)
            if ((member->type == T_OBJECT || member->type == T_OBJECT_EX)
                    && *(PyObject **)((char *)op + member->offset) == child)
                return (Edge){"attribute", NULL, member->name, NULL, -1};
    }
    return (Edge){0};
}

static Edge
edge_in_instance(PyObject *op, PyObject *child)
{
    PyTypeObject *type = Py_TYPE(op);
    if ((PyObject *)type == child)
        return (Edge){"attribute", NULL, "__class__", NULL, -1};
#if INTERNALS
    if (internals_hold && PyType_HasFeature(type, Py_TPFLAGS_MANAGED_DICT)) {
        if (managed_dict(op) == child)
            return (Edge){"namespace", NULL, "__dict__", NULL, -1};
        Edge edge = edge_inline(op, child);
        if (edge.kind != NULL)
            return edge;
    }
#endif
    if (type->tp_dictoffset > 0 && *(PyObject **)((char *)op + type->tp_dictoffset) == child)
        return (Edge){"namespace", NULL, "__dict__", NULL, -1};
    return edge_in_members(op, child);
}

static Edge
edge_by_kind(Walk *w, PyObject *op, PyObject *child, PyObject *holder, int namespace)
{
    Kind kind = type_row(&w->types, types_find(&w->types, Py_TYPE(op)))->kind;
    switch (kind) {
    case KIND_DICT: return edge_in_dict(op, child, namespace);
    case KIND_LIST: return edge_in_sequence(child, Py_SIZE(op), ((PyListObject *)op)->ob_item);
    case KIND_SET: return (Edge){"element", NULL, NULL, NULL, -1};
    case KIND_FUNCTION: return edge_in_function((PyFunctionObject *)op, child);
    case KIND_CODE: return edge_in_code((PyCodeObject *)op, child);
    case KIND_TYPE: return edge_in_type((PyTypeObject *)op, child);
    case KIND_TUPLE: {
        Edge edge = edge_in_sequence(child, Py_SIZE(op), ((PyTupleObject *)op)->ob_item);
        PyFunctionObject *function = holder && PyFunction_Check(holder) ? (PyFunctionObject *)holder : NULL;
        if (edge.kind != NULL && function != NULL && function->func_closure == op) {
            PyCodeObject *code = (PyCodeObject *)function->func_code;
            Py_ssize_t at = code->co_nlocalsplus - Py_SIZE(op) + edge.index;
            PyObject *names = code->co_localsplusnames;
            PyObject *name = at >= 0 && at < PyTuple_GET_SIZE(names) ? PyTuple_GET_ITEM(names, at) : NULL;
            return (Edge){"closure", name, NULL, NULL, -1};
        }
        return edge;
    }
#if INTERNALS
    case KIND_GENERATOR: return internals_hold ? edge_in_frame(generator_frame(op), child) : (Edge){0};
    case KIND_FRAME: return internals_hold ? edge_in_frame(((PyFrameObject *)op)->f_frame, child) : (Edge){0};
#endif
    default: return (Edge){0};
    }
}

/* `holder` is what holds op on this path (for closures); `namespace` says that op is somebody's __dict__. */
static Edge
name_edge(Walk *w, PyObject *op, PyObject *child, PyObject *holder, int namespace)
{
    Edge edge = edge_by_kind(w, op, child, holder, namespace);
    if (edge.kind == NULL && PyExceptionInstance_Check(op))
        edge = edge_in_exception((PyBaseExceptionObject *)op, child);
    if (edge.kind == NULL)
        edge = edge_in_instance(op, child);
    if (edge.kind != NULL)
        return edge;
    if (PyModule_Check(op) && PyModule_GetDict(op) == child)
        return (Edge){"namespace", NULL, "__dict__", NULL, -1};
    if (PyCell_Check(op))
        return (Edge){"cell", NULL, NULL, NULL, -1};
    if (PyMethod_Check(op))
        return (Edge){"attribute", NULL, PyMethod_GET_SELF(op) == child ? "__self__" : "__func__", NULL, -1};
    if (PyCFunction_Check(op) && PyCFunction_GET_SELF(op) == child)
        return (Edge){"attribute", NULL, "__self__", NULL, -1};
    if (PyTraceBack_Check(op) && (PyObject *)((PyTracebackObject *)op)->tb_next == child)
        return (Edge){"attribute", NULL, "tb_next", NULL, -1};
    if (Py_TYPE(op) == datetime_type || Py_TYPE(op) == time_type)
        return (Edge){"attribute", NULL, "tzinfo", NULL, -1};
    if (strcmp(Py_TYPE(op)->tp_name, "functools._lru_cache_wrapper") == 0)
        return (Edge){"held", NULL, "cached", NULL, -1};
    Type *row = type_row(&w->types, types_find(&w->types, Py_TYPE(op)));
    Finder finder = {.child = child, .at = -1};
    visit_references(row, op, find_child, &finder);
    Py_ssize_t ahead = finder.seen - Py_SIZE(op); /* a deque visits its type and attributes first, its items last */
    if (row->kind == KIND_DEQUE && finder.at >= ahead)
        return (Edge){"index", NULL, NULL, NULL, finder.at - ahead};
#if INTERNALS
    if (finder.after != NULL && PyContextVar_CheckExact(finder.after) && strncmp(row->type->tp_name, "hamt", 4) == 0)
        return (Edge){"contextvar", ((struct _pycontextvarobject *)finder.after)->var_name, NULL, NULL, -1};
#endif
    if (strcmp(row->type->tp_name, "_thread._localdummy") == 0)
        return (Edge){"namespace", NULL, "thread-local", NULL, -1};
    return (Edge){"held", NULL, finder.at >= 0 ? "in C" : "in C, by the look of it", NULL, -1};
}

/* ---- answers ---------------------------------------------------------------------------------------------------- */

static uint32_t
number_of(Walk *w, uint32_t node)
{
    return U32(w->pre)[node];
}

/* The code that a node is about, and the line where it stands or begins. */
static PyCodeObject *
node_code(PyObject *op, int *line)
{
    PyCodeObject *code = NULL;
    if (PyFunction_Check(op))
        code = (PyCodeObject *)((PyFunctionObject *)op)->func_code;
    else if (PyCode_Check(op))
        code = (PyCodeObject *)op;
#if INTERNALS
    int running = PyGen_CheckExact(op) || PyCoro_CheckExact(op) || PyAsyncGen_CheckExact(op);
    if (internals_hold && (running || PyFrame_Check(op))) {
        _PyInterpreterFrame *frame = running ? generator_frame(op) : ((PyFrameObject *)op)->f_frame;
        code = frame ? frame_code(frame) : NULL;
        *line = code ? frame_line(frame, code) : 0;
        return code;
    }
#endif
    *line = code ? code->co_firstlineno : 0;
    return code;
}

/* What a node is called beyond its type: a module's name, a function's, where a generator stands. */
static void
out_label(Out *out, PyObject *op)
{
    int line = 0;
    PyCodeObject *code = node_code(op, &line);
    PyObject *name = code ? code->co_qualname : NULL, *dict = NULL;
    PyTypeObject *type = Py_TYPE(op);
    if (PyType_Check(op)) {
        out_format(out, ",\"label\":\"");
        out_type_name(out, (PyTypeObject *)op);
        out_format(out, "\"");
        return;
    }
    if (PyModule_Check(op))
        name = dict_entry(PyModule_GetDict(op), "__name__");
    else if (name == NULL && type->tp_dictoffset > 0 && !PyType_HasFeature(type, Py_TPFLAGS_MANAGED_DICT))
        dict = *(PyObject **)((char *)op + type->tp_dictoffset);
    if (dict != NULL && PyDict_CheckExact(dict))
        name = dict_entry(dict, "__qualname__"); /* functools.wraps leaves it on what wraps a function */
    if (!is_text(name))
        return;
    out_format(out, ",\"label\":\"");
    out_text(out, name);
    if (code != NULL) {
        out_format(out, "\",\"file\":\"");
        out_text(out, code->co_filename);
    }
    out_format(out, "\",\"line\":%d", line);
}

static void
out_root(Walk *w, Out *out, uint32_t r)
{
    Root *root = ROOT(w, r);
    out_format(out, "{\"root\":\"%s\",\"name\":\"", root_names[root->kind]);
    out_text(out, root->name);
    out_format(out, "\",\"file\":\"");
    out_text(out, root->file);
    out_format(out, "\",\"line\":%d,\"thread\":%lu,\"retained\":%llu}", root->line, root->thread,
               (unsigned long long)U64(w->retained)[number_of(w, w->count + r)]);
}

static void
out_node(Walk *w, Out *out, uint32_t node)
{
    if (node >= w->count) {
        out_root(w, out, node - w->count);
        return;
    }
    PyObject *op = NODES(w)[node];
    Type *row = type_row(&w->types, U32(w->rows)[node]);
    out_format(out, "{\"type\":\"");
    out_type_name(out, row->type);
    out_format(out, "\",\"address\":%llu,\"bytes\":%llu,\"retained\":%llu", (unsigned long long)(uintptr_t)op,
               (unsigned long long)U64(w->sizes)[node], (unsigned long long)U64(w->retained)[number_of(w, node)]);
    Py_ssize_t length = container_length(row->kind, op);
    if (length >= 0)
        out_format(out, ",\"length\":%lld", (long long)length);
    out_label(out, op);
    out_format(out, "}");
}

static void
out_key(Walk *w, Out *out, PyObject *key)
{
    out_format(out, ",\"key_type\":\"");
    out_type_name(out, Py_TYPE(key));
    out_format(out, "\"");
    if (!w->values)
        return;
    int overflow = 0;
    if (PyUnicode_CheckExact(key)) {
        out_format(out, ",\"value\":\"");
        out_text(out, key);
        out_format(out, "\"");
    } else if (PyLong_CheckExact(key)) {
        long long value = PyLong_AsLongLongAndOverflow(key, &overflow);
        if (!overflow)
            out_format(out, ",\"value\":\"%lld\"", value);
    }
}

static void
out_edge(Walk *w, Out *out, Edge edge)
{
    out_format(out, "{\"kind\":\"%s\"", edge.kind);
    if (edge.name != NULL || edge.label != NULL) {
        out_format(out, ",\"name\":\"");
        if (edge.name != NULL)
            out_text(out, edge.name);
        else
            out_string(out, edge.label);
        out_format(out, "\"");
    }
    if (edge.index >= 0)
        out_format(out, ",\"index\":%lld", (long long)edge.index);
    if (edge.key != NULL)
        out_key(w, out, edge.key);
    out_format(out, "}");
}

static Edge
name_hold(Walk *w, Root *root, uint32_t node)
{
    for (uint32_t h = root->first; h < root->first + root->count; h++) {
        Hold *hold = HOLD(w, h);
        if (hold->node != node)
            continue;
        const char *kind = "held";
        if (root->kind == ROOT_MODULE && hold->name != NULL)
            kind = "module";
        else if (root->kind == ROOT_FRAME && hold->name != NULL)
            kind = "local";
        else if (root->kind == ROOT_FRAME && (strcmp(hold->label, "globals") == 0 || strcmp(hold->label, "locals") == 0))
            kind = "namespace";
        return (Edge){kind, hold->name, hold->label, NULL, -1};
    }
    return (Edge){"held", NULL, "unknown", NULL, -1};
}

enum { MAX_STEPS = 64 }; /* of a longer path the two ends are told: a linked list has as many steps as links */

/* The path from a root to a node: {"root": ..., "steps": [{"edge": ..., "node": ...}, ...], "skipped": n}. */
static void
answer_path(Walk *w, Out *out, uint32_t node)
{
    uint32_t *via = U32(w->via), steps = 0, at = node, line[MAX_STEPS];
    for (; at < w->count; at = via[at])
        steps++;
    uint32_t shown = steps < MAX_STEPS ? steps : MAX_STEPS, back = 0;
    Root *root = ROOT(w, at - w->count);
    out_format(out, "{\"root\":");
    out_root(w, out, at - w->count);
    out_format(out, ",\"skipped\":%u,\"steps\":[", steps - shown);
    for (at = node; at < w->count; at = via[at], back++) {
        if (back < shown - shown / 2)
            line[shown - 1 - back] = at;
        else if (steps - 1 - back < shown / 2)
            line[steps - 1 - back] = at;
    }
    int namespace = 0;
    for (uint32_t i = 0; i < shown; i++) {
        PyObject *op = NODES(w)[line[i]], *parent = NULL, *holder = NULL;
        if (via[line[i]] < w->count) {
            parent = NODES(w)[via[line[i]]];
            uint32_t above = via[via[line[i]]];
            holder = above < w->count ? NODES(w)[above] : NULL;
        }
        Edge edge = parent ? name_edge(w, parent, op, holder, namespace) : name_hold(w, root, line[i]);
        namespace = strcmp(edge.kind, "namespace") == 0;
        out_format(out, i ? ",{\"edge\":" : "{\"edge\":");
        out_edge(w, out, edge);
        out_format(out, ",\"node\":");
        out_node(w, out, line[i]);
        out_format(out, "}");
    }
    out_format(out, "]}");
}

/* The dominators of a node, nearest first: freeing any of them would free the node. */
static void
answer_dominators(Walk *w, Out *out, uint32_t node)
{
    uint32_t number = number_of(w, node), left = MAX_STEPS;
    out_format(out, "[");
    for (uint32_t above = U32(w->idom)[number]; above > 1 && left > 0; above = U32(w->idom)[above], left--) {
        if (left < MAX_STEPS)
            out_format(out, ",");
        out_node(w, out, U32(w->vertex)[above]);
    }
    out_format(out, "]");
}

typedef struct {
    uint32_t node;
    uint64_t retained;
} Ranked;

enum { MAX_RANKED = 1000 };

static uint32_t
rank(Ranked *best, uint32_t count, uint32_t limit, uint32_t node, uint64_t retained)
{
    if (count == limit && (limit == 0 || best[count - 1].retained >= retained))
        return count;
    uint32_t at = count < limit ? count++ : count - 1;
    for (; at > 0 && best[at - 1].retained < retained; at--)
        best[at] = best[at - 1];
    best[at] = (Ranked){node, retained};
    return count;
}

static void
out_ranked(Walk *w, Out *out, const Ranked *best, uint32_t count)
{
    out_format(out, "[");
    for (uint32_t i = 0; i < count; i++) {
        out_format(out, i ? "," : "");
        out_node(w, out, best[i].node);
    }
    out_format(out, "]");
}

/* Nodes by retained size: all of them, or those that one node dominates directly. */
static void
answer_largest(Walk *w, Out *out, uint32_t above, uint32_t limit)
{
    static Ranked best[MAX_RANKED];
    uint32_t count = 0, number = above == NONE ? 0 : number_of(w, above);
    limit = limit < MAX_RANKED ? limit : MAX_RANKED;
    for (uint32_t v = 2; v <= w->reached; v++) {
        uint32_t node = U32(w->vertex)[v];
        if (node < w->count && (number == 0 || U32(w->idom)[v] == number))
            count = rank(best, count, limit, node, U64(w->retained)[v]);
    }
    out_ranked(w, out, best, count);
}

/* The nodes that retain most, each with its dominator: {"above": address, "root": index or -1, "node": ...}. Of a chain
 * of like objects, each of which holds the rest, only the first two are told. */
static void
answer_outline(Walk *w, Out *out, uint32_t limit)
{
    static Ranked best[MAX_RANKED];
    uint32_t count = 0, *vertex = U32(w->vertex), *idom = U32(w->idom), *rows = U32(w->rows);
    uint64_t *retained = U64(w->retained);
    limit = limit < MAX_RANKED ? limit : MAX_RANKED;
    for (uint32_t v = 2; v <= w->reached; v++) {
        uint32_t node = vertex[v], above = vertex[idom[v]], top = vertex[idom[idom[v]]];
        int inside = node < w->count && above < w->count && top < w->count && rows[node] == rows[above]
            && rows[above] == rows[top] && retained[v] > retained[idom[v]] / 2;
        if (node < w->count && !inside)
            count = rank(best, count, limit, node, retained[v]);
    }
    out_format(out, "[");
    for (uint32_t i = 0; i < count; i++) {
        uint32_t above = vertex[idom[number_of(w, best[i].node)]];
        int root = above >= w->count && above < w->count + w->root_count ? (int)(above - w->count) : -1;
        void *address = above < w->count ? NODES(w)[above] : NULL;
        out_format(out, "%s{\"above\":%llu,\"root\":%d,\"node\":", i ? "," : "", (unsigned long long)(uintptr_t)address, root);
        out_node(w, out, best[i].node);
        out_format(out, "}");
    }
    out_format(out, "]");
}

/* May objects of this type own memory that no object shows: a socket's, a database's, a tensor's? The nearest base that
 * is written in C decides. Those of the core have no module in their name; of its extensions these own nothing else. */
static int
owns_unseen(Walk *w, PyTypeObject *type)
{
    static const char *const seen[] = {
        "_asyncio.", "functools.", "itertools.", "_thread.", "datetime.", "decimal.", "_queue.", "operator.", "types.",
        "re.", "collections.", "_contextvars.", "_functools.", "_collections.", "_operator.", "_random.", "_struct.",
        "weakref.", "array.", "_pickle.", "xml.", "_elementtree.", "_abc.", "_io.BytesIO", "_io.StringIO", "typing.",
    };
    while (type != NULL && PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE) && made_dealloc != NULL
            && type->tp_dealloc == made_dealloc)
        type = type->tp_base;
    if (type == NULL || strchr(type->tp_name, '.') == NULL)
        return 0;
    Kind kind = type_row(&w->types, types_find(&w->types, type))->kind;
    for (size_t i = 0; i < sizeof(seen) / sizeof(seen[0]); i++)
        if (strncmp(type->tp_name, seen[i], strlen(seen[i])) == 0)
            return 0;
    return kind == KIND_INSTANCE || kind == KIND_OPAQUE;
}

/* How many objects below a node of the dominator tree may own memory that no object shows. */
static void
answer_foreign(Walk *w, Out *out, uint32_t node)
{
    uint32_t top = number_of(w, node), *idom = U32(w->idom), *vertex = U32(w->vertex);
    uint64_t count = 0;
    Region inside = {0};
    if (region_need(&out->budget, &inside, (size_t)w->reached + 1) < 0) {
        out_format(out, "{\"error\":\"memory\"}");
        return;
    }
    uint8_t *in = inside.data;
    for (uint32_t v = top; v <= w->reached; v++) {
        in[v] = v == top || in[idom[v]];
        if (in[v] && vertex[v] < w->count)
            count += owns_unseen(w, Py_TYPE(NODES(w)[vertex[v]]));
    }
    region_free(&out->budget, &inside);
    out_format(out, "{\"count\":%llu}", (unsigned long long)count);
}

/* Count by type everything below a node of the dominator tree; the walk's own counts are put back afterwards. */
static void
answer_holdings(Walk *w, Out *out, uint32_t node)
{
    uint32_t top = number_of(w, node), rows = w->types.count, *idom = U32(w->idom);
    Region inside = {0}, kept = {0};
    Budget *budget = &out->budget;
    if (region_need(budget, &inside, (size_t)w->reached + 1) < 0 || region_need(budget, &kept, rows * sizeof(Type)) < 0) {
        out_format(out, "{\"error\":\"memory\"}");
        return;
    }
    uint8_t *in = inside.data;
    memcpy(kept.data, w->types.rows.data, rows * sizeof(Type));
    for (uint32_t i = 0; i < rows; i++)
        type_row(&w->types, i)->count = type_row(&w->types, i)->bytes = type_row(&w->types, i)->tracked = 0;
    for (uint32_t v = top; v <= w->reached; v++) {
        uint32_t below = U32(w->vertex)[v];
        in[v] = v == top || in[idom[v]];
        if (!in[v] || below >= w->count)
            continue;
        Type *row = type_row(&w->types, U32(w->rows)[below]);
        row->count++;
        row->bytes += U64(w->sizes)[below];
        row->tracked += below < w->tracked;
    }
    out_format(out, "{");
    out_types(out, &w->types);
    out_format(out, ",\"retained\":%llu}", (unsigned long long)U64(w->retained)[top]);
    memcpy(w->types.rows.data, kept.data, rows * sizeof(Type));
    region_free(budget, &inside);
    region_free(budget, &kept);
}

/* Neighbours with the names of the edges: who holds this node, or what it holds. */
static void
answer_neighbours(Walk *w, Out *out, uint32_t node, uint32_t limit, int inward)
{
    uint32_t number = number_of(w, node);
    uint32_t from = inward ? U32(w->in_offsets)[number] : U32(w->offsets)[node];
    uint32_t end = inward ? U32(w->in_offsets)[number + 1] : U32(w->offsets)[node + 1];
    uint32_t written = 0;
    out_format(out, "{\"count\":%u,\"rows\":[", end - from);
    for (uint32_t e = from; e < end && written < limit; e++) {
        uint32_t other = inward ? U32(w->vertex)[U32(w->in_edges)[e]] : U32(w->edges)[e];
        if (!inward && other >= w->count)
            continue; /* what garbage refers to among the living */
        if (other == node && type_row(&w->types, U32(w->rows)[node])->kind == KIND_OPAQUE)
            continue; /* a guess that was not believed */
        uint32_t parent = inward ? other : node, child = inward ? node : other;
        Edge edge = parent < w->count ? name_edge(w, NODES(w)[parent], NODES(w)[child], NULL, 0)
                                      : name_hold(w, ROOT(w, parent - w->count), child);
        out_format(out, written++ ? ",{\"edge\":" : "{\"edge\":");
        out_edge(w, out, edge);
        out_format(out, ",\"node\":");
        out_node(w, out, other);
        out_format(out, "}");
    }
    out_format(out, "]}");
}

static void
answer_roots(Walk *w, Out *out)
{
    out_format(out, "[");
    for (uint32_t r = 0; r < w->root_count; r++) {
        out_format(out, r ? "," : "");
        out_root(w, out, r);
    }
    out_format(out, "]");
}

static void
answer_statistics(Walk *w, Out *out)
{
    uint64_t bytes = 0, garbage = U64(w->retained)[number_of(w, w->count + w->garbage_root)];
    for (uint32_t node = 0; node < w->count; node++)
        bytes += U64(w->sizes)[node];
    out_format(out, "{\"objects\":%u,\"tracked\":%u,\"references\":%zu,\"bytes\":%llu,\"garbage_bytes\":%llu",
               w->count, w->tracked, w->edge_count, (unsigned long long)bytes, (unsigned long long)garbage);
    out_format(out, ",\"graph_bytes\":%zu,\"walk_s\":%.6f,\"reach_s\":%.6f,\"dominate_s\":%.6f}", w->budget.used,
               w->walk_s, w->reach_s, w->dominate_s);
}

static const char *
argument(const char *line, unsigned long long *value)
{
    char *end;
    *value = strtoull(line, &end, 10);
    return end;
}

/* One line of the asker, "command address limit", answered with one line of JSON. */
static void
answer(Walk *w, Out *out, const char *line)
{
    static const char *const by_node[] = {
        "node", "path", "dominators", "children", "holdings", "referrers", "referents", "foreign", NULL,
    };
    unsigned long long address, limit;
    int command = 0;
    size_t length = strcspn(line, " ");
    argument(argument(line + length, &address), &limit);
    if (strncmp(line, "quit", length) == 0)
        _exit(0);
    if (strncmp(line, "statistics", length) == 0) { answer_statistics(w, out); return; }
    if (strncmp(line, "garbage", length) == 0) { answer_holdings(w, out, w->count + w->garbage_root); return; }
    if (strncmp(line, "roots", length) == 0) { answer_roots(w, out); return; }
    if (strncmp(line, "outline", length) == 0) { answer_outline(w, out, (uint32_t)limit); return; }
    if (strncmp(line, "largest", length) == 0) { answer_largest(w, out, NONE, (uint32_t)limit); return; }
    if (strncmp(line, "census", length) == 0) {
        out_format(out, "{");
        out_types(out, &w->types);
        out_format(out, "}");
        return;
    }
    uint32_t node = walk_find(w, (void *)(uintptr_t)address);
    while (by_node[command] != NULL && strncmp(line, by_node[command], length) != 0)
        command++;
    if (node == NONE) { out_format(out, "{\"error\":\"unknown\"}"); return; }
    switch (command) {
    case 0: out_node(w, out, node); break;
    case 1: answer_path(w, out, node); break;
    case 2: answer_dominators(w, out, node); break;
    case 3: answer_largest(w, out, node, (uint32_t)limit); break;
    case 4: answer_holdings(w, out, node); break;
    case 5: answer_neighbours(w, out, node, (uint32_t)limit, 1); break;
    case 6: answer_neighbours(w, out, node, (uint32_t)limit, 0); break;
    case 7: answer_foreign(w, out, node); break;
    default: out_format(out, "{\"error\":\"command\"}"); break;
    }
}

/* ---- child: a frozen copy that answers questions ---------------------------------------------------------------- */

typedef struct {
    int request, reply, nice;
} Service;

static void
close_inherited(const Service *service)
{
    int low = service->request < service->reply ? service->request : service->reply;
    int high = service->request < service->reply ? service->reply : service->request;
#ifdef __SANITIZE_ADDRESS__
    int first = 3; /* the sanitizer reports to stderr */
#else
    int first = 0;
#endif
    struct { int from, to; } gaps[] = {{first, low - 1}, {low + 1, high - 1}, {high + 1, INT_MAX}};
    for (int i = 0; i < 3; i++) {
        if (gaps[i].from > gaps[i].to)
            continue;
#ifdef SYS_close_range
        if (syscall(SYS_close_range, gaps[i].from, gaps[i].to, 0) == 0)
            continue;
#endif
        long most = sysconf(_SC_OPEN_MAX);
        for (int fd = gaps[i].from; fd <= gaps[i].to && fd < (most > 0 ? most : 65536); fd++)
            close(fd);
    }
}

/* Be the first to go: last in line for the processor, first for the out-of-memory killer, no core file, no sockets
 * kept open on the parent's behalf. A signal meant for the parent's process group must not reach Python's handlers. */
static void
child_settle(const Service *service)
{
    sigset_t none;
    sigemptyset(&none);
    for (int number = 1; number < NSIG; number++)
        signal(number, SIG_DFL);
    signal(SIGINT, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    sigprocmask(SIG_SETMASK, &none, NULL);
    close_inherited(service);
    setpriority(PRIO_PROCESS, 0, service->nice);
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
    prctl(PR_SET_NAME, "flatwater-heap");
    int fd = open("/proc/self/oom_score_adj", O_WRONLY);
    if (fd >= 0) {
        (void)!write(fd, "1000", 4);
        close(fd);
    }
}

static void
child_send(const Service *service, Out *out)
{
    out_bytes(out, "\n", 1);
    for (size_t sent = 0; sent < out->length;) {
        ssize_t count = write(service->reply, (char *)out->text.data + sent, out->length - sent);
        if (count < 0 && errno != EINTR)
            _exit(0);
        sent += count > 0 ? (size_t)count : 0;
    }
    out->length = 0;
}

static int
child_build(Walk *w, Sink *sink)
{
    if (walk_heap(w, sink) < 0 || reach(w, sink) < 0)
        return -1;
    leave_when_alone(w->request);
    double start = now_s();
    Flow flow = {
        .budget = &w->budget, .nodes = w->count + w->root_count + 1, .root = w->count + w->root_count,
        .offsets = U32(w->offsets), .edges = U32(w->edges), .sizes = U64(w->sizes),
    };
    if (flow_run(&flow) < 0)
        return -1;
    w->reached = flow.reached;
    w->pre = flow.pre, w->vertex = flow.vertex, w->idom = flow.idom, w->retained = flow.retained;
    w->in_offsets = flow.in_offsets, w->in_edges = flow.in_edges;
    w->dominate_s = now_s() - start;
    return 0;
}

static Walk the_walk; /* of the child alone; zero until then */

static void __attribute__((noreturn))
child_main(const Service *service, Sink *sink, size_t max_bytes, int values)
{
    Walk *w = &the_walk;
    Out out = {.budget.max = 256u << 20};
    char line[256];
    size_t length = 0;
    child_settle(service);
    w->budget.max = max_bytes;
    w->request = service->request;
    w->values = values;
    sink->arg = w;
    if (child_build(w, sink) < 0) {
        out_format(&out, "{\"error\":\"memory\",\"used\":%zu,\"objects\":%u}", w->budget.used, w->count);
        child_send(service, &out);
        _exit(1);
    }
    answer(w, &out, "statistics");
    child_send(service, &out);
    for (;;) {
        ssize_t count = read(service->request, line + length, 1);
        if (count == 0 || (count < 0 && errno != EINTR) || length + 2 > sizeof(line))
            _exit(0);
        if (count < 0 || line[length++] != '\n')
            continue;
        line[length - 1] = 0;
        length = 0;
        answer(w, &out, line);
        child_send(service, &out);
    }
}

/* ---- module ----------------------------------------------------------------------------------------------------- */

PyDoc_STRVAR(census_doc,
"census(scope, min_length, max_containers, max_bytes, skip, locals, growable=0) -> JSON\n\n"
"Count the heap by type. scope: 0 what the collector tracks, 1 also untracked containers, 2 everything.\n"
"Containers of at least min_length entries are listed, longest first (-1: none). When what is growable is wanted,\n"
"tuples are left out, and bytearrays and other buffers from 64 KiB on are listed, their\n"
"length in bytes. Sizes are bytes.");

static PyObject *
heap_census(PyObject *module, PyObject *args)
{
    static Census census; /* large; the GIL is held from here to the end */
    int scope, growable = 0;
    Py_ssize_t min_length, max_containers, max_bytes;
    PyObject *skip, *locals;
    (void)module;
    if (!PyArg_ParseTuple(args, "innnUO!|p", &scope, &min_length, &max_containers, &max_bytes, &skip,
                          &PyList_Type, &locals, &growable))
        return NULL;
    find_sized_types();
    memset(&census, 0, sizeof(census));
    census.budget.max = (size_t)max_bytes;
    census.scope = scope <= 0 ? SCOPE_TRACKED : scope == 1 ? SCOPE_CONTAINERS : SCOPE_ALL;
    census.min_length = min_length;
    census.growable = growable;
    Out out = {.budget.max = 1u << 30};
    census_run(&census, skip, locals);
    census_write(&census, &out, (size_t)max_containers);
    census_free(&census);
    PyObject *result = out.budget.failed ? PyErr_NoMemory() : PyBytes_FromStringAndSize(out.text.data, (Py_ssize_t)out.length);
    region_free(&out.budget, &out.text);
    return result;
}

PyDoc_STRVAR(take_doc,
"take(addresses, names, limit, max_bytes, skip, locals) -> ([object or None], [object])\n\n"
"The objects that live at these addresses now, at most 64 (None where no object is), and of the\n"
"types of these names the first and the last `limit` objects that the collector lists: the youngest are among them.");

static int
take_addresses(Taking *taking, PyObject *addresses)
{
    taking->count = (int)PyTuple_GET_SIZE(addresses);
    for (int i = 0; i < taking->count; i++) {
        taking->address[i] = PyLong_AsSize_t(PyTuple_GET_ITEM(addresses, i));
        if (taking->address[i] == (uintptr_t)-1 && PyErr_Occurred())
            return -1;
        size_t bit = (taking->address[i] >> 4) % TAKE_BITS;
        taking->near[bit / 8] |= (uint8_t)(1u << bit % 8);
    }
    taking->left = taking->count;
    return 0;
}

/* References first: making a list may run the collector, which would free what nobody else holds. */
static PyObject *
take_result(Taking *taking)
{
    size_t count = taking->seen < 2 * taking->limit ? taking->seen : 2 * taking->limit;
    for (int i = 0; i < taking->count; i++)
        taking->found[i] = Py_NewRef(taking->found[i] != NULL ? taking->found[i] : Py_None);
    for (size_t i = 0; i < count; i++)
        Py_INCREF(taking->of_type[i]);
    PyObject *found = PyList_New(taking->count), *of_type = PyList_New((Py_ssize_t)count);
    for (int i = 0; i < taking->count; i++)
        found != NULL ? (void)PyList_SET_ITEM(found, i, taking->found[i]) : Py_DECREF(taking->found[i]);
    for (size_t i = 0; i < count; i++)
        of_type != NULL ? (void)PyList_SET_ITEM(of_type, (Py_ssize_t)i, taking->of_type[i]) : Py_DECREF(taking->of_type[i]);
    if (found != NULL && of_type != NULL)
        return Py_BuildValue("NN", found, of_type);
    Py_XDECREF(found);
    Py_XDECREF(of_type);
    return NULL;
}

static PyObject *
heap_take(PyObject *module, PyObject *args)
{
    static Census census; /* large; the GIL is held from here to the end */
    static Taking taking;
    PyObject *addresses, *names, *skip, *locals;
    Py_ssize_t limit, max_bytes;
    (void)module;
    if (!PyArg_ParseTuple(args, "O!O!nnUO!", &PyTuple_Type, &addresses, &PyTuple_Type, &names, &limit, &max_bytes,
                          &skip, &PyList_Type, &locals))
        return NULL;
    if (PyTuple_GET_SIZE(addresses) > MAX_TAKEN || limit < 0 || limit > 1000000)
        return PyErr_Format(PyExc_ValueError, "at most %d addresses, and a limit of at most 1000000", MAX_TAKEN);
    memset(&census, 0, sizeof(census));
    memset(&taking, 0, sizeof(taking));
    find_sized_types();
    census.budget.max = (size_t)max_bytes;
    census.scope = SCOPE_CONTAINERS;
    census.min_length = -1;
    census.growable = 1;
    taking.names = names;
    taking.limit = PyTuple_GET_SIZE(names) ? (size_t)limit : 0;
    taking.of_type = PyMem_Calloc(2 * taking.limit + 1, sizeof(PyObject *));
    if (taking.of_type == NULL)
        return PyErr_NoMemory();
    if (take_addresses(&taking, addresses) < 0) {
        PyMem_Free(taking.of_type);
        return NULL;
    }
    take_run(&taking, &census, skip, locals);
    PyObject *result = take_result(&taking);
    PyMem_Free(taking.of_type);
    return result;
}

PyDoc_STRVAR(fork_graph_doc,
"fork_graph(request, reply, max_bytes, nice, values, skip, locals) -> (pid, pause)\n\n"
"Fork a child that builds the reference graph of its frozen copy of this heap, writes its statistics to the file\n"
"descriptor reply, and then answers each line that it reads from request. pause: seconds that fork() took.");

static PyObject *
heap_fork_graph(PyObject *module, PyObject *args)
{
    Service service;
    Py_ssize_t max_bytes;
    int values;
    Sink sink = {walk_begin_root, walk_hold, NULL, NULL, NULL};
    (void)module;
    if (!PyArg_ParseTuple(args, "iinipUO!", &service.request, &service.reply, &max_bytes, &service.nice, &values,
                          &sink.skip, &PyList_Type, &sink.locals))
        return NULL;
    if (PySys_Audit("os.fork", NULL) < 0)
        return NULL;
    find_sized_types();
    double start = now_s();
    pid_t pid = fork(); /* not os.fork(): the child must keep the other threads' states, and runs no Python */
    if (pid == 0)
        child_main(&service, &sink, (size_t)max_bytes, values);
    if (pid < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    return Py_BuildValue("id", (int)pid, now_s() - start);
}

PyDoc_STRVAR(dominators_doc,
"dominators(offsets, edges, sizes, root) -> (idom, retained)\n\n"
"Immediate dominators and retained sizes of a graph in CSR form: offsets (n + 1 uint32), edges (uint32), sizes\n"
"(n uint64). Results are bytes: n uint32 (the root's own number for the root, 0xFFFFFFFF where unreachable) and\n"
"n uint64 (0 where unreachable). Raises ValueError when the arrays do not fit each other.");

static int
flow_fits(const Flow *flow, size_t edges)
{
    if (flow->root >= flow->nodes || flow->offsets[0] != 0 || flow->offsets[flow->nodes] != edges)
        return 0;
    for (uint32_t i = 0; i < flow->nodes; i++)
        if (flow->offsets[i] > flow->offsets[i + 1])
            return 0;
    for (size_t i = 0; i < edges; i++)
        if (flow->edges[i] >= flow->nodes)
            return 0;
    return 1;
}

static PyObject *
flow_results(Flow *flow)
{
    PyObject *idom = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(flow->nodes * sizeof(uint32_t)));
    PyObject *retained = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(flow->nodes * sizeof(uint64_t)));
    for (uint32_t node = 0; idom && retained && node < flow->nodes; node++) {
        uint32_t number = U32(flow->pre)[node];
        uint32_t above = number == 0 ? NONE : number == 1 ? node : U32(flow->vertex)[U32(flow->idom)[number]];
        uint64_t bytes = number == 0 ? 0 : U64(flow->retained)[number];
        memcpy(PyBytes_AS_STRING(idom) + node * sizeof(above), &above, sizeof(above));
        memcpy(PyBytes_AS_STRING(retained) + node * sizeof(bytes), &bytes, sizeof(bytes));
    }
    if (idom && retained)
        return Py_BuildValue("NN", idom, retained);
    Py_XDECREF(idom);
    Py_XDECREF(retained);
    return NULL;
}

static PyObject *
heap_dominators(PyObject *module, PyObject *args)
{
    Py_buffer offsets, edges, sizes;
    unsigned int root;
    Budget budget = {.max = SIZE_MAX};
    PyObject *result = NULL;
    (void)module;
    if (!PyArg_ParseTuple(args, "y*y*y*I", &offsets, &edges, &sizes, &root))
        return NULL;
    Flow flow = {.budget = &budget, .nodes = (uint32_t)(sizes.len / 8), .root = root,
                 .offsets = offsets.buf, .edges = edges.buf, .sizes = sizes.buf};
    if (offsets.len != ((Py_ssize_t)flow.nodes + 1) * 4 || !flow_fits(&flow, (size_t)edges.len / 4))
        PyErr_SetString(PyExc_ValueError, "the arrays do not describe a graph in CSR form");
    else if (flow_run(&flow) < 0)
        PyErr_NoMemory();
    else
        result = flow_results(&flow);
    flow_free(&flow);
    PyBuffer_Release(&offsets);
    PyBuffer_Release(&edges);
    PyBuffer_Release(&sizes);
    return result;
}

#include "sampler.c"

static PyMethodDef methods[] = {
    {"census", heap_census, METH_VARARGS, census_doc},
    {"take", heap_take, METH_VARARGS, take_doc},
    {"fork_graph", heap_fork_graph, METH_VARARGS, fork_graph_doc},
    {"dominators", heap_dominators, METH_VARARGS, dominators_doc},
#if INTERNALS
    {"sampler_start", sampler_start, METH_VARARGS, sampler_start_doc},
    {"sampler_stop", sampler_stop, METH_NOARGS, sampler_stop_doc},
    {"sampler_read", sampler_read, METH_NOARGS, sampler_read_doc},
#endif
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "flatwater.memory._heap", "The heap walker; use flatwater.memory.heap.", -1, methods,
    NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC
PyInit__heap(void)
{
#if INTERNALS
    internals_hold = layouts_agree();
#endif
    if (!internals_hold && PY_VERSION_HEX < 0x030C0000) {
        PyErr_SetString(PyExc_ImportError, "flatwater.memory._heap was built for Python " PY_VERSION
                        ", whose layouts differ from this one's: reinstall Flatwater with this Python");
        return NULL;
    }
    (void)PyDateTimeAPI; /* the header declares it; only its structs are used */
    PyObject *module = PyModule_Create(&definition);
    if (module == NULL || PyModule_AddStringConstant(module, "BUILT_FOR", PY_VERSION) < 0
            || PyModule_AddObjectRef(module, "INTERNALS", internals_hold ? Py_True : Py_False) < 0)
        Py_CLEAR(module);
    return module;
}
