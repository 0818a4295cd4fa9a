/* What the guard does around every task, where each microsecond is paid a thousand times a second: two readings, a slot
 * in the file of flights, and the sums of a row.
 *
 * meter_fallback.py is the same in Python, for installations without a compiler; meter.py takes what there is. Whatever
 * is not of every task (a row's first task, an interval's end, a level that is too high) is left to the caller in
 * Python. All state belongs to the holder of the GIL, which is not given up here: to get it back may take 5 ms.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#ifdef Py_GIL_DISABLED
#  error "the meter needs a Python with the GIL"
#endif

/* A slot as flight.py describes it: 1 while the task runs, since, id and name, each text after a byte with its length.
 */
enum { MAX_SLOTS = 64, SINCE = 1, ID = SINCE + 8, ID_ROOM = 64, NAME = ID + ID_ROOM, NAME_ROOM = 180 };
enum { SLOT_SIZE = NAME + NAME_ROOM };

static double
clock_of(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* ---- slots ------------------------------------------------------------------------------------------------------- */

typedef struct {
    PyObject_HEAD
    Py_buffer map; /* obj is NULL when it has been released */
    int free[MAX_SLOTS], count;
    long long skipped;
} Slots;

static int
slots_init(PyObject *op, PyObject *arguments, PyObject *named)
{
    Slots *self = (Slots *)op;
    static char *names[] = {"map", "first", NULL};
    PyObject *map;
    int first;
    if (!PyArg_ParseTupleAndKeywords(arguments, named, "Oi:Slots", names, &map, &first))
        return -1;
    PyBuffer_Release(&self->map);
    if (PyObject_GetBuffer(map, &self->map, PyBUF_WRITABLE) < 0)
        return -1;
    if (first < 0 || self->map.len < first + MAX_SLOTS * SLOT_SIZE) {
        PyBuffer_Release(&self->map);
        PyErr_SetString(PyExc_ValueError, "the map is too small for the slots");
        return -1;
    }
    for (self->count = 0; self->count < MAX_SLOTS; self->count++)
        self->free[self->count] = first + self->count * SLOT_SIZE;
    return 0;
}

static void
slots_dealloc(PyObject *op)
{
    PyBuffer_Release(&((Slots *)op)->map);
    PyObject_Free(op);
}

/* The text's start with its length before it; false for what is no text, or cannot be written. */
static bool
write_text(char *place, PyObject *text, Py_ssize_t room)
{
    Py_ssize_t length;
    const char *bytes = PyUnicode_Check(text) ? PyUnicode_AsUTF8AndSize(text, &length) : NULL;
    if (bytes == NULL) {
        PyErr_Clear();
        return false;
    }
    if (length > room - 1)
        length = room - 1;
    *place = (char)length;
    memcpy(place + 1, bytes, (size_t)length);
    return true;
}

/* The slot of a task that begins now, -1 without one. */
static int
slots_take(Slots *self, PyObject *name, PyObject *id)
{
    if (self->map.obj == NULL)
        return -1;
    if (self->count == 0) {
        self->skipped++;
        return -1;
    }
    int slot = self->free[self->count - 1];
    char *place = (char *)self->map.buf + slot;
    if (PyFloat_Pack8(clock_of(CLOCK_REALTIME), place + SINCE, 1) < 0)
        PyErr_Clear();
    if (!write_text(place + ID, id, ID_ROOM) || !write_text(place + NAME, name, NAME_ROOM)) {
        self->skipped++;
        return -1;
    }
    self->count--;
    __atomic_store_n(place, 1, __ATOMIC_RELEASE); /* last: who is killed before has not begun the task */
    return slot;
}

static void
slots_give(Slots *self, int slot)
{
    if (self->map.obj == NULL || slot < 0 || self->count >= MAX_SLOTS)
        return;
    ((char *)self->map.buf)[slot] = 0;
    self->free[self->count++] = slot;
}

static PyObject *
slots_put(PyObject *op, PyObject *arguments)
{
    PyObject *name, *id;
    if (!PyArg_ParseTuple(arguments, "OO:put", &name, &id))
        return NULL;
    return PyLong_FromLong(slots_take((Slots *)op, name, id));
}

static PyObject *
slots_clear(PyObject *op, PyObject *slot)
{
    Slots *self = (Slots *)op;
    long at = PyLong_AsLong(slot);
    if (at == -1 && PyErr_Occurred())
        return NULL;
    if (at > self->map.len - SLOT_SIZE)
        return PyErr_Format(PyExc_ValueError, "there is no slot at %ld", at);
    slots_give(self, (int)at);
    Py_RETURN_NONE;
}

static PyObject *
slots_release(PyObject *op, PyObject *Py_UNUSED(nothing))
{
    PyBuffer_Release(&((Slots *)op)->map);
    Py_RETURN_NONE;
}

static PyMethodDef slots_methods[] = {
    {"put", slots_put, METH_VARARGS, "The slot of a task that begins now, by name and id; -1 when there is none."},
    {"clear", slots_clear, METH_O, "The task of the slot has ended."},
    {"release", slots_release, METH_NOARGS, "Let go of the map, so that it can be closed."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef slots_members[] = {
    {"skipped", T_LONGLONG, offsetof(Slots, skipped), READONLY, "Tasks that were not written."},
    {NULL, 0, 0, 0, NULL},
};

static PyTypeObject slots_type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "flatwater.guard._meter.Slots",
    .tp_basicsize = sizeof(Slots),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_doc = "Slots(map, first): 64 slots of a writable map, from the byte first.",
    .tp_new = PyType_GenericNew,
    .tp_init = slots_init,
    .tp_dealloc = slots_dealloc,
    .tp_methods = slots_methods,
    .tp_members = slots_members,
};

/* ---- sums -------------------------------------------------------------------------------------------------------- */

typedef struct {
    PyObject_HEAD
    long long count, failed, peak, rise, alone, retained, calls, closed_alone, closed_retained;
    double total_s, max_s;
} Sums;

static void
sums_book(Sums *self, double seconds, long long before, long long after, long long peak, bool alone, bool failed)
{
    self->count++;
    self->calls++;
    self->total_s += seconds;
    if (failed)
        self->failed++;
    if (seconds > self->max_s)
        self->max_s = seconds;
    if (peak > self->peak)
        self->peak = peak;
    if (peak - before > self->rise)
        self->rise = peak - before;
    if (alone) {
        self->alone++;
        self->retained += after - before;
    }
}

static PyObject *
sums_add(PyObject *op, PyObject *arguments)
{
    double seconds;
    long long before, after, peak;
    int alone, failed;
    if (!PyArg_ParseTuple(arguments, "dLLLpp:add", &seconds, &before, &after, &peak, &alone, &failed))
        return NULL;
    sums_book((Sums *)op, seconds, before, after, peak, alone, failed);
    Py_RETURN_NONE;
}

static PyMethodDef sums_methods[] = {
    {"add", sums_add, METH_VARARGS,
     "A task has ended: seconds, level before and after, peak (bytes), whether it ran alone, whether it failed."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef sums_members[] = {
    {"count", T_LONGLONG, offsetof(Sums, count), 0, NULL},
    {"failed", T_LONGLONG, offsetof(Sums, failed), 0, NULL},
    {"peak", T_LONGLONG, offsetof(Sums, peak), 0, NULL},
    {"rise", T_LONGLONG, offsetof(Sums, rise), 0, NULL},
    {"alone", T_LONGLONG, offsetof(Sums, alone), 0, NULL},
    {"retained", T_LONGLONG, offsetof(Sums, retained), 0, NULL},
    {"calls", T_LONGLONG, offsetof(Sums, calls), 0, "Ended in the open interval."},
    {"closed_alone", T_LONGLONG, offsetof(Sums, closed_alone), 0, "alone, when the last interval was closed."},
    {"closed_retained", T_LONGLONG, offsetof(Sums, closed_retained), 0, "retained, when it was."},
    {"total_s", T_DOUBLE, offsetof(Sums, total_s), 0, NULL},
    {"max_s", T_DOUBLE, offsetof(Sums, max_s), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyTypeObject sums_type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "flatwater.guard._meter.Sums",
    .tp_basicsize = sizeof(Sums),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_doc = "What is known of a task name's calls: see flatwater.guard.table.Row.",
    .tp_new = PyType_GenericNew,
    .tp_methods = sums_methods,
    .tp_members = sums_members,
};

/* ---- calls ------------------------------------------------------------------------------------------------------- */

typedef struct {
    PyObject_HEAD
    PyObject *name, *id;
    double began, ended;
    long long before, after, mark, peak, number;
    int slot;
    char alone;
} Call;

static void
call_dealloc(PyObject *op)
{
    Py_XDECREF(((Call *)op)->name);
    Py_XDECREF(((Call *)op)->id);
    PyObject_Free(op);
}

static PyMemberDef call_members[] = {
    {"name", T_OBJECT_EX, offsetof(Call, name), 0, NULL},
    {"id", T_OBJECT_EX, offsetof(Call, id), READONLY, NULL},
    {"began", T_DOUBLE, offsetof(Call, began), READONLY, "By the monotonic clock."},
    {"ended", T_DOUBLE, offsetof(Call, ended), READONLY, NULL},
    {"before", T_LONGLONG, offsetof(Call, before), READONLY, "The level at its begin, in bytes."},
    {"after", T_LONGLONG, offsetof(Call, after), READONLY, "The level at its end."},
    {"mark", T_LONGLONG, offsetof(Call, mark), READONLY, "The highest level at its begin."},
    {"peak", T_LONGLONG, offsetof(Call, peak), 0, "The highest level of the process while it ran."},
    {"number", T_LONGLONG, offsetof(Call, number), READONLY, "How many tasks have begun, this one included."},
    {"slot", T_INT, offsetof(Call, slot), READONLY, "Where its flight is written; -1: nowhere."},
    {"alone", T_BOOL, offsetof(Call, alone), 0, "No other task ran meanwhile."},
    {NULL, 0, 0, 0, NULL},
};

static PyTypeObject call_type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "flatwater.guard._meter.Call",
    .tp_basicsize = sizeof(Call),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_doc = "A task in flight.",
    .tp_dealloc = call_dealloc,
    .tp_members = call_members,
};

/* ---- the meter --------------------------------------------------------------------------------------------------- */

typedef struct {
    PyObject_HEAD
    PyObject *gauge, *rows; /* a Gauge; a dict of Sums by name */
    Slots *slots;           /* NULL without a file of flights */
    int statm;
    long long page, inherited;
    unsigned long serial;
    long long level, mark, begun, ended, calm, spike;
    double read_at, stands_s, until;
} Meter;

/* The page faults of this thread at its last reading, and whose reading that was. */
static _Thread_local struct {
    unsigned long serial;
    long faults;
} touched;

static unsigned long last_serial;

static int
meter_init(PyObject *op, PyObject *arguments, PyObject *named)
{
    Meter *self = (Meter *)op;
    static char *names[] = {"gauge", "slots", "rows", "inherited", "stands_s", "spike", NULL};
    PyObject *gauge, *slots, *rows;
    long long inherited, spike;
    double stands_s;
    if (!PyArg_ParseTupleAndKeywords(arguments, named, "OOO!LdL:Meter", names, &gauge, &slots, &PyDict_Type, &rows,
                                     &inherited, &stands_s, &spike))
        return -1;
    if (slots != Py_None && !Py_IS_TYPE(slots, &slots_type)) {
        PyErr_SetString(PyExc_TypeError, "slots must be Slots or None");
        return -1;
    }
    if (self->gauge != NULL) {
        PyErr_SetString(PyExc_TypeError, "a meter is made once");
        return -1;
    }
    self->statm = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    if (self->statm < 0) {
        PyErr_SetFromErrnoWithFilename(PyExc_OSError, "/proc/self/statm");
        return -1;
    }
    self->gauge = Py_NewRef(gauge);
    self->rows = Py_NewRef(rows);
    self->slots = slots == Py_None ? NULL : (Slots *)Py_NewRef(slots);
    self->page = sysconf(_SC_PAGESIZE);
    self->inherited = inherited;
    self->serial = ++last_serial;
    self->stands_s = stands_s;
    self->spike = spike;
    self->read_at = self->until = -Py_HUGE_VAL;
    return 0;
}

static PyObject *
meter_new(PyTypeObject *type, PyObject *Py_UNUSED(arguments), PyObject *Py_UNUSED(named))
{
    PyObject *op = type->tp_alloc(type, 0);
    if (op != NULL)
        ((Meter *)op)->statm = -1;
    return op;
}

static void
meter_dealloc(PyObject *op)
{
    Meter *self = (Meter *)op;
    if (self->statm >= 0)
        close(self->statm);
    Py_XDECREF(self->gauge);
    Py_XDECREF(self->rows);
    Py_XDECREF(self->slots);
    PyObject_Free(op);
}

/* RSS in bytes, the second number of statm; -1 with an exception. */
static long long
meter_rss(Meter *self)
{
    char text[128];
    ssize_t length = self->statm < 0 ? 0 : pread(self->statm, text, sizeof text - 1, 0);
    if (length > 0) {
        text[length] = '\0';
        char *second = strchr(text, ' ');
        if (second != NULL)
            return strtoll(second, NULL, 10) * self->page;
    }
    if (length < 0)
        PyErr_SetFromErrnoWithFilename(PyExc_OSError, "/proc/self/statm");
    else
        PyErr_SetString(PyExc_OSError, "/proc/self/statm cannot be read");
    return -1;
}

/* The highest RSS in bytes, and this thread's page faults; -1 with an exception. */
static long long
meter_usage(Meter *self, long *faults)
{
    struct rusage usage;
    getrusage(RUSAGE_THREAD, &usage);
    *faults = usage.ru_minflt;
    long long peak = (long long)usage.ru_maxrss * 1024;
    if (peak > self->inherited)
        return peak;
    PyObject *told = PyObject_CallMethod(self->gauge, "peak", NULL); /* its parent's was higher: the slow way */
    peak = told != NULL ? PyLong_AsLongLong(told) : -1;
    Py_XDECREF(told);
    return peak;
}

static PyObject *
meter_open(PyObject *op, PyObject *const *arguments, Py_ssize_t count)
{
    Meter *self = (Meter *)op;
    if (count != 3)
        return PyErr_Format(PyExc_TypeError, "open takes a name, an id and whether it runs alone");
    int alone = PyObject_IsTrue(arguments[2]);
    if (alone < 0)
        return NULL;
    double now = clock_of(CLOCK_MONOTONIC);
    if (now - self->read_at > self->stands_s) {
        long faults;
        long long level = meter_rss(self), mark = level < 0 ? -1 : meter_usage(self, &faults);
        if (mark < 0)
            return NULL;
        self->level = level;
        self->mark = mark;
        self->read_at = now;
    }
    Call *call = PyObject_New(Call, &call_type);
    if (call == NULL)
        return NULL;
    call->name = Py_NewRef(arguments[0]);
    call->id = Py_NewRef(arguments[1]);
    call->began = call->ended = now;
    call->before = call->after = call->peak = self->level;
    call->mark = self->mark;
    call->number = ++self->begun;
    call->alone = (char)alone;
    call->slot = self->slots != NULL ? slots_take(self->slots, call->name, call->id) : -1;
    return (PyObject *)call;
}

/* Its row, when the task is like others and nothing is due; NULL without an exception: the rest is the caller's. */
static Sums *
row_of(Meter *self, Call *call)
{
    if (call->name == NULL || call->after >= self->calm || self->mark - call->after > self->spike || call->ended >= self->until)
        return NULL;
    PyObject *row = PyDict_GetItemWithError(self->rows, call->name);
    return row != NULL && Py_IS_TYPE(row, &sums_type) ? (Sums *)row : NULL;
}

static PyObject *
meter_shut(PyObject *op, PyObject *const *arguments, Py_ssize_t count)
{
    Meter *self = (Meter *)op;
    if (count != 2 || !Py_IS_TYPE(arguments[0], &call_type))
        return PyErr_Format(PyExc_TypeError, "shut takes a call and whether it failed");
    Call *call = (Call *)arguments[0];
    int failed = PyObject_IsTrue(arguments[1]);
    if (failed < 0)
        return NULL;
    if (self->slots != NULL)
        slots_give(self->slots, call->slot);
    call->slot = -1;
    long faults;
    double now = clock_of(CLOCK_MONOTONIC);
    long long mark = meter_usage(self, &faults);
    if (mark < 0)
        return NULL;
    if (now - self->read_at > self->stands_s || touched.serial != self->serial || touched.faults != faults) {
        long long level = meter_rss(self);
        if (level < 0)
            return NULL;
        self->level = level;
        self->read_at = now;
        touched.serial = self->serial;
        touched.faults = faults;
    }
    call->ended = now;
    call->after = self->level;
    if (mark > call->mark)
        call->peak = mark;
    if (call->peak < call->after)
        call->peak = call->after;
    call->alone = call->alone && call->number == self->begun;
    self->mark = mark;
    self->ended++;
    Sums *sums = row_of(self, call);
    if (sums == NULL) {
        if (PyErr_Occurred())
            return NULL;
        Py_RETURN_FALSE;
    }
    sums_book(sums, now - call->began, call->before, call->after, call->peak, call->alone, failed);
    Py_RETURN_TRUE;
}

static PyObject *
meter_drop(PyObject *op, PyObject *call)
{
    Meter *self = (Meter *)op;
    if (!Py_IS_TYPE(call, &call_type))
        return PyErr_Format(PyExc_TypeError, "drop takes a call");
    if (self->slots != NULL)
        slots_give(self->slots, ((Call *)call)->slot);
    ((Call *)call)->slot = -1;
    Py_RETURN_NONE;
}

static PyObject *
meter_close(PyObject *op, PyObject *Py_UNUSED(nothing))
{
    Meter *self = (Meter *)op;
    if (self->statm >= 0)
        close(self->statm);
    self->statm = -1;
    Py_RETURN_NONE;
}

static PyMethodDef meter_methods[] = {
    {"open", (PyCFunction)(void (*)(void))meter_open, METH_FASTCALL,
     "A task begins in this thread: name, id, whether no other runs. Raises OSError when /proc cannot be read."},
    {"shut", (PyCFunction)(void (*)(void))meter_shut, METH_FASTCALL,
     "The task has ended: call, whether it failed. False: it is measured, and not yet booked."},
    {"close", meter_close, METH_NOARGS, "Measure no more. Closing twice is allowed."},
    {"drop", meter_drop, METH_O, "The task is gone, and nobody told its end."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef meter_members[] = {
    {"level", T_LONGLONG, offsetof(Meter, level), 0, "RSS at the last reading, in bytes."},
    {"mark", T_LONGLONG, offsetof(Meter, mark), 0, "The highest RSS at the last reading."},
    {"begun", T_LONGLONG, offsetof(Meter, begun), READONLY, "Tasks."},
    {"ended", T_LONGLONG, offsetof(Meter, ended), READONLY, "Tasks."},
    {"calm", T_LONGLONG, offsetof(Meter, calm), 0, "The level from which on the end of a task is the caller's."},
    {"until", T_DOUBLE, offsetof(Meter, until), 0, "When the open interval ends, by the monotonic clock."},
    {NULL, 0, 0, 0, NULL},
};

static PyTypeObject meter_type = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "flatwater.guard._meter.Meter",
    .tp_basicsize = sizeof(Meter),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_doc = "Meter(gauge, slots, rows, inherited, stands_s, spike): see flatwater.guard.meter_fallback.Meter.",
    .tp_new = meter_new,
    .tp_init = meter_init,
    .tp_dealloc = meter_dealloc,
    .tp_methods = meter_methods,
    .tp_members = meter_members,
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "flatwater.guard._meter", "Around every task; use flatwater.guard.meter.", -1, NULL, NULL,
    NULL, NULL, NULL,
};

PyMODINIT_FUNC
PyInit__meter(void)
{
    PyObject *module = PyModule_Create(&definition);
    PyTypeObject *types[] = {&call_type, &meter_type, &slots_type, &sums_type};
    for (size_t at = 0; module != NULL && at < sizeof types / sizeof *types; at++)
        if (PyModule_AddType(module, types[at]) < 0)
            Py_CLEAR(module);
    return module;
}
