/* Which line makes a container longer: events of every thread, between which the lengths of a few containers are read.
 *
 * At each event (a line, a call, a return) the lengths are compared with what they were at the one before; a change is
 * booked to the place where the thread was meanwhile. The Python side (flatwater.memory.maker) sees to it that the
 * containers live for as long as they are watched. On 3.12 and later the events come from sys.monitoring, with a tool
 * id of our own; on 3.11 from a trace function in each thread that has none. No Python code runs in here, and only
 * public interfaces are used.
 *
 * All state belongs to the holder of the GIL. One window at a time.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <frameobject.h>

#include <pthread.h>
#include <string.h>

#ifdef Py_GIL_DISABLED
#  error "the watch needs a Python with the GIL"
#endif

enum { MAX_CONTAINERS = 64, MAX_FRAMES = 32, MAX_SITES = 1024, THREADS = 1024, NEAR = 3 };

/* A place in the code: a line, or where the line is unknown yet an offset in the bytecode, from which it is found. */
typedef struct {
    PyCodeObject *code; /* owned; NULL: nowhere */
    int line, offset;
} Place;

typedef struct {
    uint64_t thread; /* the thread state's id, never used twice; 0: free */
    Place place;
} Thread;

typedef struct {
    int container, sign, depth;
    uint64_t events, entries;
    uint64_t hash;
    Place other;             /* the place of the thread that ran before, when the change may be that one's */
    Place stack[MAX_FRAMES]; /* innermost first */
} Site;

/* What is read of each: an entry count; or of a slot (an attribute, a dict's value, a cell) which object is in it. */
typedef Py_ssize_t (*Figure)(PyObject *op, PyObject *name);

static struct {
    int armed, forked, frames;
    uint64_t turn; /* counts what arm() and its like do: making a frame object may run the collector, its finalizers
                    * may let other threads run, and what we stood on may be gone after that */
    int count;
    PyObject *held[MAX_CONTAINERS];
    PyObject *name[MAX_CONTAINERS]; /* of a slot that is watched: its attribute's name, or its key */
    Figure figure[MAX_CONTAINERS];
    Py_ssize_t before[MAX_CONTAINERS];
    uint64_t grew[MAX_CONTAINERS], shrank[MAX_CONTAINERS], rises[MAX_CONTAINERS];
    uint64_t events, lost; /* events seen; changes that found no room among the sites */
    uint64_t own;          /* the thread that watches: its events say nothing */
    Thread threads[THREADS];
    int thread_count;
    Thread *last; /* of the event before */
    void *head;   /* the newest thread state that was seen; only compared */
    Site *sites;  /* a table by hash */
    int site_count;
} watch;

static PyTypeObject *deque_type, *array_type, *bytes_io_type, *string_io_type, *element_type;

/* ---- figures ----------------------------------------------------------------------------------------------------- */

static Py_ssize_t
dict_length(PyObject *op, PyObject *name)
{
    (void)name;
    return ((PyDictObject *)op)->ma_used;
}

static Py_ssize_t
set_length(PyObject *op, PyObject *name)
{
    (void)name;
    return ((PySetObject *)op)->used;
}

static Py_ssize_t
own_size(PyObject *op, PyObject *name)
{
    (void)name;
    return ((PyVarObject *)op)->ob_size;
}

static Py_ssize_t
element_length(PyObject *op, PyObject *name)
{
    (void)name;
    return Py_TYPE(op)->tp_as_sequence->sq_length(op);
}

/* Where a stream in memory stands: its end, while it is written. */
static Py_ssize_t
stream_length(PyObject *op, PyObject *name)
{
    static PyObject *tell;
    (void)name;
    if (tell == NULL)
        tell = PyUnicode_InternFromString("tell");
    PyObject *at = tell ? PyObject_CallMethodNoArgs(op, tell) : NULL; /* of an exact type: it runs C alone */
    Py_ssize_t length = at ? PyLong_AsSsize_t(at) : -1;
    Py_XDECREF(at);
    if (length < 0)
        PyErr_Clear(); /* it was closed */
    return length;
}

static Py_ssize_t
dict_slot(PyObject *op, PyObject *name)
{
    return (Py_ssize_t)PyDict_GetItem(op, name);
}

static Py_ssize_t
cell_slot(PyObject *op, PyObject *name)
{
    (void)name;
    return (Py_ssize_t)PyCell_GET(op);
}

/* An attribute as the interpreter keeps it; no descriptor of the program runs. */
static Py_ssize_t
attribute_slot(PyObject *op, PyObject *name)
{
    PyObject *found = _PyType_Lookup(Py_TYPE(op), name); /* borrowed */
    if (found != NULL && !Py_IS_TYPE(found, &PyMemberDescr_Type) && Py_TYPE(found)->tp_descr_get != NULL)
        return 0;
    PyObject *value = _PyObject_GenericGetAttrWithDict(op, name, NULL, 1);
    Py_XDECREF(value); /* the slot still has it */
    if (value == NULL)
        PyErr_Clear();
    return (Py_ssize_t)value;
}

static int
is_slot(Figure figure)
{
    return figure == dict_slot || figure == cell_slot || figure == attribute_slot;
}

/* ---- places ------------------------------------------------------------------------------------------------------ */

static void
place_set(Place *place, PyCodeObject *code, int line, int offset)
{
    PyCodeObject *before = place->code;
    *place = (Place){(PyCodeObject *)Py_NewRef(code), line, offset};
    Py_XDECREF(before);
}

static void
place_clear(Place *place)
{
    PyCodeObject *before = place->code;
    *place = (Place){NULL, 0, 0};
    Py_XDECREF(before);
}

static int
place_line(const Place *place)
{
    return place->line > 0 || place->code == NULL ? place->line : PyCode_Addr2Line(place->code, place->offset);
}

static void
place_of_frame(Place *place, PyFrameObject *frame)
{
    PyCodeObject *code = PyFrame_GetCode(frame);
    place_set(place, code, 0, PyFrame_GetLasti(frame));
    Py_DECREF(code);
}

/* ---- threads ----------------------------------------------------------------------------------------------------- */

static Thread *
thread_of(uint64_t id)
{
    if (watch.last != NULL && watch.last->thread == id)
        return watch.last;
    for (size_t at = id % THREADS;; at = (at + 1) % THREADS) {
        Thread *thread = &watch.threads[at];
        if (thread->thread == id)
            return thread;
        if (thread->thread == 0) {
            if (watch.thread_count >= THREADS * 3 / 4)
                return NULL;
            watch.thread_count++;
            thread->thread = id;
            return thread;
        }
    }
}

static void
threads_clear(void)
{
    watch.turn++;
    watch.last = NULL;
    watch.thread_count = 0;
    for (int i = 0; i < THREADS; i++) {
        watch.threads[i].thread = 0;
        place_clear(&watch.threads[i].place);
    }
}

/* ---- sites ------------------------------------------------------------------------------------------------------- */

static int
same_place(const Place *a, const Place *b)
{
    return a->code == b->code && place_line(a) == place_line(b);
}

static int
same_site(const Site *a, const Site *b)
{
    if (a->hash != b->hash || a->container != b->container || a->sign != b->sign || a->depth != b->depth
            || !same_place(&a->other, &b->other))
        return 0;
    for (int i = 0; i < a->depth; i++)
        if (!same_place(&a->stack[i], &b->stack[i]))
            return 0;
    return 1;
}

static void
site_release(Site *site)
{
    place_clear(&site->other);
    for (int i = 0; i < site->depth; i++)
        place_clear(&site->stack[i]);
    site->depth = 0;
}

static void
site_push(Site *site, PyCodeObject *code, int line)
{
    if (site->depth == watch.frames)
        return;
    Place *place = &site->stack[site->depth++];
    *place = (Place){NULL, 0, 0};
    place_set(place, code, line, 0);
    site->hash = (site->hash ^ (uintptr_t)code ^ (uint64_t)line << 40) * 0x9E3779B97F4A7C15u;
    site->hash ^= site->hash >> 29;
}

/* The place itself, then whoever waits below its frame. It is near the top: the frame of the event, or the one that
 * called it. When it is not there (a greenlet was switched) the place stands alone. */
static void
site_stack(Site *site, const Place *place, PyFrameObject *top, int skip)
{
    PyFrameObject *frame = (PyFrameObject *)Py_XNewRef(top), *back;
    int found = 0;
    site_push(site, place->code, place_line(place));
    for (int i = 0; frame != NULL && site->depth < watch.frames; i++) {
        PyCodeObject *code = PyFrame_GetCode(frame);
        if (found)
            site_push(site, code, PyFrame_GetLineNumber(frame));
        else if (code == place->code && i >= skip)
            found = 1;
        Py_DECREF(code);
        if (!found && i >= NEAR)
            break;
        back = PyFrame_GetBack(frame);
        Py_DECREF(frame);
        frame = back;
    }
    Py_XDECREF(frame);
}

static void
site_book(Site *wanted, uint64_t entries)
{
    size_t at = wanted->hash % MAX_SITES;
    while (watch.sites[at].events && !same_site(&watch.sites[at], wanted))
        at = (at + 1) % MAX_SITES;
    Site *site = &watch.sites[at];
    if (site->events == 0) {
        if (watch.site_count >= MAX_SITES * 3 / 4) {
            watch.lost++;
            site_release(wanted);
            return;
        }
        watch.site_count++;
        *site = *wanted;
    }
    else
        site_release(wanted);
    site->events++;
    site->entries += entries;
}

/* ---- events ------------------------------------------------------------------------------------------------------ */

static void
book(int i, Py_ssize_t now, Thread *thread, PyFrameObject *top, int skip)
{
    Py_ssize_t change = now - watch.before[i];
    if (change == 0)
        return;
    watch.before[i] = now;
    if (is_slot(watch.figure[i])) /* another object is in it; or none: its removal */
        change = now ? 1 : -1;
    Site site = {.container = i, .sign = change > 0 ? 1 : -1, .hash = (uint64_t)i * 2 + (change > 0)};
    uint64_t entries = change > 0 ? (uint64_t)change : (uint64_t)-change;
    (change > 0 ? watch.grew : watch.shrank)[i] += entries;
    watch.rises[i] += change > 0;
    if (thread == NULL || thread->place.code == NULL)
        return; /* it stays unknown */
    Place place = {NULL, 0, 0};
    place_set(&place, thread->place.code, place_line(&thread->place), 0);
    if (watch.last != NULL && watch.last != thread && watch.last->place.code != NULL) {
        const Place *other = &watch.last->place;
        place_set(&site.other, other->code, place_line(other), 0);
        site.hash ^= (uintptr_t)other->code;
    }
    uint64_t turn = watch.turn;
    site_stack(&site, &place, top, skip);
    if (watch.turn == turn && watch.armed)
        site_book(&site, entries);
    else
        site_release(&site);
    place_clear(&place);
}

/* Read the lengths. `skip` frames on top began only now; the frame is asked for when something changed. */
static Thread *
look(PyFrameObject *frame, int skip)
{
    PyThreadState *state = PyThreadState_Get();
    uint64_t id = PyThreadState_GetID(state);
    if (id == watch.own)
        return NULL;
    watch.events++;
    Thread *thread = thread_of(id);
    PyFrameObject *top = NULL;
    uint64_t turn = watch.turn;
    for (int i = 0; i < watch.count && watch.turn == turn; i++) {
        Py_ssize_t now = watch.figure[i](watch.held[i], watch.name[i]);
        if (now == watch.before[i])
            continue;
        if (top == NULL)
            top = frame != NULL ? (PyFrameObject *)Py_NewRef(frame) : PyThreadState_GetFrame(state);
        if (watch.turn == turn)
            book(i, watch.figure[i](watch.held[i], watch.name[i]), thread, top, skip);
    }
    Py_XDECREF(top);
    if (watch.turn != turn)
        return NULL;
    watch.last = thread;
    return thread;
}

static void
enter_line(PyFrameObject *frame, PyCodeObject *code, int line, int offset, int skip)
{
    Thread *thread = look(frame, skip);
    if (thread != NULL)
        place_set(&thread->place, code, line, offset);
}

/* The frame on top is about to end or to yield: what comes next is done by the one below. */
static void
leave(PyFrameObject *given)
{
    Thread *thread = look(given, 0);
    if (thread == NULL)
        return;
    uint64_t turn = watch.turn;
    PyFrameObject *frame = given ? (PyFrameObject *)Py_NewRef(given) : PyThreadState_GetFrame(PyThreadState_Get());
    PyFrameObject *back = frame ? PyFrame_GetBack(frame) : NULL;
    Py_XDECREF(frame);
    if (back == NULL || watch.turn != turn)
        place_clear(&thread->place);
    else
        place_of_frame(&thread->place, back);
    Py_XDECREF(back);
}

#if PY_VERSION_HEX >= 0x030C0000

/* After a fork the child is told the places of the parent's window: it asks not to be told again. */
static PyObject *
nothing(PyObject *disable)
{
    return Py_NewRef(watch.forked && disable ? disable : Py_None);
}

static PyObject *disable; /* sys.monitoring.DISABLE */

static PyObject *
on_line(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    if (watch.armed && count == 2 && PyCode_Check(args[0]))
        enter_line(NULL, (PyCodeObject *)args[0], (int)PyLong_AsLong(args[1]), 0, 0);
    return nothing(disable);
}

static PyObject *
on_start(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    if (watch.armed && count >= 2 && PyCode_Check(args[0]))
        enter_line(NULL, (PyCodeObject *)args[0], 0, (int)PyLong_AsLong(args[1]), 1);
    return nothing(disable);
}

static PyObject *
on_end(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module, (void)args, (void)count;
    if (watch.armed)
        leave(NULL);
    return nothing(disable);
}

static PyObject *
on_throw(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    Py_XDECREF(on_start(module, args, count));
    return Py_NewRef(Py_None); /* this event and the next cannot be disabled */
}

static PyObject *
on_unwind(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    Py_XDECREF(on_end(module, args, count));
    return Py_NewRef(Py_None);
}

#endif

#if PY_VERSION_HEX < 0x030C0000

static int on_event(PyObject *self, PyFrameObject *frame, int what, PyObject *arg);

/* Trace every thread that nobody else traces. Threads that begin later stand at the head of the list. */
static int
cover(PyInterpreterState *interpreter)
{
    int left = 0;
    PyThreadState *state = watch.head = PyInterpreterState_ThreadHead(interpreter);
    for (; state != NULL; state = PyThreadState_Next(state)) {
        if (state->c_tracefunc == on_event || PyThreadState_GetID(state) == watch.own || !state->_initialized)
            continue;
        if (state->c_tracefunc != NULL)
            left++;
        else if (_PyEval_SetTrace(state, on_event, NULL) < 0)
            return -1;
    }
    return left;
}

static int
on_event(PyObject *self, PyFrameObject *frame, int what, PyObject *arg)
{
    (void)self, (void)arg;
    if (watch.forked) {
        PyEval_SetTrace(NULL, NULL);
        return 0;
    }
    if (!watch.armed || (what != PyTrace_LINE && what != PyTrace_CALL && what != PyTrace_RETURN))
        return 0;
    PyInterpreterState *interpreter = PyInterpreterState_Get();
    if (PyInterpreterState_ThreadHead(interpreter) != watch.head && cover(interpreter) < 0)
        PyErr_Clear();
    if (what == PyTrace_RETURN) {
        leave(frame);
        return 0;
    }
    PyCodeObject *code = PyFrame_GetCode(frame);
    enter_line(frame, code, PyFrame_GetLineNumber(frame), 0, what == PyTrace_CALL);
    Py_DECREF(code);
    return 0;
}

#endif

/* ---- module ------------------------------------------------------------------------------------------------------ */

static Figure
figure_of(PyObject *op)
{
    if (PyDict_Check(op))
        return dict_length;
    if (PyAnySet_Check(op))
        return set_length;
    if (PyList_Check(op) || PyByteArray_Check(op) || (deque_type != NULL && PyType_IsSubtype(Py_TYPE(op), deque_type))
            || Py_IS_TYPE(op, array_type))
        return own_size;
    if (Py_IS_TYPE(op, bytes_io_type) || Py_IS_TYPE(op, string_io_type))
        return stream_length;
    return Py_IS_TYPE(op, element_type) ? element_length : NULL;
}

static Figure
slot_of(PyObject *op, PyObject *name)
{
    if (PyCell_Check(op))
        return cell_slot;
    if (name == Py_None)
        return NULL;
    return PyDict_Check(op) ? dict_slot : PyUnicode_CheckExact(name) && !PyType_Check(op) ? attribute_slot : NULL;
}

/* Borrowed; NULL while its module is not loaded. */
static PyTypeObject *
loaded_type(const char *module_name, const char *name)
{
    PyObject *modules = PyImport_GetModuleDict();
    PyObject *module = modules ? PyDict_GetItemString(modules, module_name) : NULL;
    PyObject *type = module && PyModule_Check(module) ? PyDict_GetItemString(PyModule_GetDict(module), name) : NULL;
    return type && PyType_Check(type) ? (PyTypeObject *)type : NULL;
}

static void
find_types(void)
{
    array_type = loaded_type("array", "array");
    bytes_io_type = loaded_type("_io", "BytesIO");
    string_io_type = loaded_type("_io", "StringIO");
    element_type = loaded_type("_elementtree", "Element");
}

static int
hold(PyObject *op)
{
    int i = watch.count;
    PyObject *name = NULL;
    if (PyTuple_CheckExact(op) && PyTuple_GET_SIZE(op) == 2) {
        name = PyTuple_GET_ITEM(op, 1);
        op = PyTuple_GET_ITEM(op, 0);
    }
    watch.figure[i] = name ? slot_of(op, name) : figure_of(op);
    if (watch.figure[i] == NULL) {
        PyErr_Format(PyExc_TypeError, "a %.80s has no %s to watch", Py_TYPE(op)->tp_name, name ? "slot" : "length");
        return -1;
    }
    watch.held[i] = Py_NewRef(op);
    watch.name[i] = Py_XNewRef(name);
    watch.count++;
    return 0;
}

static void
in_child(void)
{
    watch.forked = watch.armed || watch.sites != NULL;
    watch.armed = 0;
}

static void
clear(void)
{
    watch.armed = 0;
    for (int i = 0; watch.sites != NULL && i < MAX_SITES; i++)
        if (watch.sites[i].events) {
            watch.sites[i].events = 0;
            site_release(&watch.sites[i]);
        }
    PyMem_Free(watch.sites);
    watch.sites = NULL;
    threads_clear();
    int count = watch.count;
    watch.count = 0;
    for (int i = 0; i < count; i++) {
        Py_CLEAR(watch.name[i]);
        Py_CLEAR(watch.held[i]);
    }
}

PyDoc_STRVAR(open_doc,
"open(containers, frames)\n\n"
"Begin a window over at most 64 lists, dicts, sets, deques, arrays, streams in memory and XML elements, and slots: pairs\n"
"(object, attribute's name or key or, of a cell, None). They are held until close(). Stacks have at most `frames` places.\n"
"Raises RuntimeError while another window is open, TypeError for what has nothing to watch.");

static PyObject *
watch_open(PyObject *module, PyObject *args)
{
    PyObject *containers;
    int frames;
    (void)module;
    if (!PyArg_ParseTuple(args, "O!i", &PyList_Type, &containers, &frames))
        return NULL;
    if (watch.forked) { /* what the parent had open */
        clear();
        watch.forked = 0;
    }
    if (watch.sites != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "another window is open in this process");
        return NULL;
    }
    if (PyList_GET_SIZE(containers) > MAX_CONTAINERS) {
        PyErr_SetString(PyExc_ValueError, "at most 64 containers can be watched at once");
        return NULL;
    }
    Site *sites = PyMem_Calloc(MAX_SITES, sizeof(Site));
    if (sites == NULL)
        return PyErr_NoMemory();
    memset(&watch, 0, sizeof(watch));
    watch.sites = sites;
    watch.frames = frames < 1 ? 1 : frames > MAX_FRAMES ? MAX_FRAMES : frames;
    find_types();
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(containers); i++)
        if (hold(PyList_GET_ITEM(containers, i)) < 0) {
            clear();
            return NULL;
        }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(figure_doc,
"figure(container) -> int or None\n\nThe length that open() would watch; None for what has none.");

static PyObject *
watch_figure(PyObject *module, PyObject *op)
{
    (void)module;
    find_types();
    Figure figure = figure_of(op);
    return figure ? PyLong_FromSsize_t(figure(op, NULL)) : Py_NewRef(Py_None);
}

PyDoc_STRVAR(slot_doc,
"slot(object, name) -> object or None\n\nWhat is in the slot now. Raises TypeError for what is none.");

static PyObject *
watch_slot(PyObject *module, PyObject *args)
{
    PyObject *op, *name;
    (void)module;
    if (!PyArg_ParseTuple(args, "OO", &op, &name))
        return NULL;
    Figure figure = slot_of(op, name);
    if (figure == NULL)
        return PyErr_Format(PyExc_TypeError, "a %.80s has no slot to watch", Py_TYPE(op)->tp_name);
    PyObject *found = (PyObject *)figure(op, name);
    return Py_NewRef(found ? found : Py_None);
}

PyDoc_STRVAR(arm_doc,
"arm() -> threads\n\n"
"Look at the lengths and at where each thread is, and begin to book. On 3.11 it also sets a trace function in each\n"
"thread but the calling one; those that have another are left alone, and counted in the result (always 0 later).");

static PyObject *
watch_arm(PyObject *module, PyObject *args)
{
    PyThreadState *own = PyThreadState_Get(), *state;
    int left = 0;
    (void)module, (void)args;
    if (watch.sites == NULL || watch.forked) {
        PyErr_SetString(PyExc_RuntimeError, "no window is open");
        return NULL;
    }
    threads_clear();
    watch.own = PyThreadState_GetID(own);
    for (state = PyInterpreterState_ThreadHead(PyInterpreterState_Get()); state != NULL; state = PyThreadState_Next(state)) {
        if (state == own)
            continue;
        Thread *thread = thread_of(PyThreadState_GetID(state));
        PyFrameObject *frame = PyThreadState_GetFrame(state);
        if (frame != NULL && thread != NULL)
            place_of_frame(&thread->place, frame);
        Py_XDECREF(frame);
    }
    for (int i = 0; i < watch.count; i++)
        watch.before[i] = watch.figure[i](watch.held[i], watch.name[i]);
    watch.armed = 1;
#if PY_VERSION_HEX < 0x030C0000
    if ((left = cover(PyInterpreterState_Get())) < 0)
        return NULL;
#endif
    return PyLong_FromLong(left);
}

PyDoc_STRVAR(disarm_doc,
"disarm()\n\nBook nothing more. On 3.11 it also takes our trace function from each thread, and no other's.");

static PyObject *
watch_disarm(PyObject *module, PyObject *args)
{
    (void)module, (void)args;
    if (watch.armed)
        for (int i = 0; i < watch.count; i++)
            book(i, watch.figure[i](watch.held[i], watch.name[i]), NULL, NULL, 0);
    watch.armed = 0;
#if PY_VERSION_HEX < 0x030C0000
    PyThreadState *state = PyInterpreterState_ThreadHead(PyInterpreterState_Get());
    for (; state != NULL; state = PyThreadState_Next(state))
        if (state->c_tracefunc == on_event && _PyEval_SetTrace(state, NULL, NULL) < 0)
            return NULL;
#endif
    threads_clear();
    Py_RETURN_NONE;
}

static PyObject *
place_tuple(const Place *place)
{
    if (place->code == NULL)
        return Py_NewRef(Py_None);
    return Py_BuildValue("OOi", place->code->co_filename, place->code->co_qualname, place_line(place));
}

static PyObject *
site_tuple(const Site *site)
{
    PyObject *stack = PyTuple_New(site->depth);
    for (int i = 0; stack != NULL && i < site->depth; i++) {
        PyObject *place = place_tuple(&site->stack[i]);
        if (place == NULL)
            Py_CLEAR(stack);
        else
            PyTuple_SET_ITEM(stack, i, place);
    }
    if (stack == NULL)
        return NULL;
    return Py_BuildValue("iiKKNN", site->container, site->sign, (unsigned long long)site->events,
                         (unsigned long long)site->entries, stack, place_tuple(&site->other));
}

PyDoc_STRVAR(results_doc,
"results() -> (events, lost, [(length, grew, shrank, rises)], [(container, sign, events, entries, stack, other)])\n\n"
"What was booked since open(). A place is (file, function, line); `other` is where the thread was that ran before,\n"
"when the change may be that one's, else None.");

static PyObject *
watch_results(PyObject *module, PyObject *args)
{
    (void)module, (void)args;
    PyObject *figures = PyList_New(0), *sites = PyList_New(0);
    for (int i = 0; figures != NULL && sites != NULL && i < watch.count; i++) {
        Py_ssize_t length = watch.figure[i](watch.held[i], watch.name[i]);
        PyObject *row = Py_BuildValue("nKKK", is_slot(watch.figure[i]) ? length != 0 : length, (unsigned long long)watch.grew[i],
                                      (unsigned long long)watch.shrank[i], (unsigned long long)watch.rises[i]);
        if (row == NULL || PyList_Append(figures, row) < 0)
            Py_CLEAR(figures);
        Py_XDECREF(row);
    }
    for (int i = 0; figures != NULL && sites != NULL && watch.sites != NULL && i < MAX_SITES; i++) {
        if (watch.sites[i].events == 0)
            continue;
        PyObject *row = site_tuple(&watch.sites[i]);
        if (row == NULL || PyList_Append(sites, row) < 0)
            Py_CLEAR(sites);
        Py_XDECREF(row);
    }
    if (figures != NULL && sites != NULL)
        return Py_BuildValue("KKNN", (unsigned long long)watch.events, (unsigned long long)watch.lost, figures, sites);
    Py_XDECREF(figures);
    Py_XDECREF(sites);
    return NULL;
}

PyDoc_STRVAR(close_doc, "close()\n\nEnd the window and let go of the containers. Closing twice is allowed.");

static PyObject *
watch_close(PyObject *module, PyObject *args)
{
    PyObject *result = watch_disarm(module, args);
    clear();
    watch.forked = 0;
    return result;
}

PyDoc_STRVAR(rises_doc, "rises() -> [int]\n\nHow often each container became longer since open().");

static PyObject *
watch_rises(PyObject *module, PyObject *args)
{
    (void)module, (void)args;
    PyObject *result = PyList_New(watch.count);
    for (int i = 0; result != NULL && i < watch.count; i++) {
        PyObject *number = PyLong_FromUnsignedLongLong(watch.rises[i]);
        if (number == NULL)
            Py_CLEAR(result);
        else
            PyList_SET_ITEM(result, i, number);
    }
    return result;
}

static PyObject *child_call; /* to be called in a child that is forked while a window is open */

PyDoc_STRVAR(in_fork_doc,
"in_fork(function or None) -> first\n\n"
"What to call in a child that is forked from now on. True the first time in a process: then pass after_fork to\n"
"os.register_at_fork, which cannot be taken back, and so is done once however often this package is imported.");

static PyObject *
watch_in_fork(PyObject *module, PyObject *function)
{
    static int known;
    (void)module;
    PyObject *before = child_call;
    child_call = function == Py_None ? NULL : Py_NewRef(function);
    Py_XDECREF(before);
    return PyBool_FromLong(!known++);
}

static PyObject *
watch_after_fork(PyObject *module, PyObject *args)
{
    (void)module, (void)args;
    PyObject *function = child_call;
    if (function == NULL)
        Py_RETURN_NONE;
    child_call = NULL;
    PyObject *result = PyObject_CallNoArgs(function);
    Py_DECREF(function);
    return result;
}

PyDoc_STRVAR(trace_allocations_doc,
"trace_allocations(frames)\n\n"
"tracemalloc.start(frames), but for memory that is allocated without the GIL: a thread that waits for the GIL in\n"
"tracemalloc's hook while another stops tracemalloc crashes the process (python/cpython#128679, until 3.12.9).");

static PyObject *
watch_trace_allocations(PyObject *module, PyObject *frames)
{
    PyMemAllocatorEx raw;
    (void)module;
    PyObject *tracemalloc = PyImport_ImportModule("_tracemalloc");
    PyObject *start = tracemalloc ? PyObject_GetAttrString(tracemalloc, "start") : NULL;
    PyObject *result = NULL;
    if (start != NULL) {
        PyMem_GetAllocator(PYMEM_DOMAIN_RAW, &raw);
        result = PyObject_CallOneArg(start, frames);
        PyMem_SetAllocator(PYMEM_DOMAIN_RAW, &raw);
    }
    Py_XDECREF(start);
    Py_XDECREF(tracemalloc);
    return result;
}

PyDoc_STRVAR(made_at_doc,
"made_at(object) -> ((file, line), ...) or None\n\n"
"_tracemalloc._get_object_traceback, innermost first; on 3.11 also right for objects whose __dict__ the interpreter\n"
"manages, which begin two words later in their block than that function thinks.");

static PyObject *
watch_made_at(PyObject *module, PyObject *op)
{
    static PyObject *ask;
    (void)module;
#if PY_VERSION_HEX < 0x030C0000
    if (PyType_HasFeature(Py_TYPE(op), Py_TPFLAGS_MANAGED_DICT) && PyObject_IS_GC(op))
        return _PyTraceMalloc_GetTraceback(0, (uintptr_t)op - 4 * sizeof(void *)); /* and the collector's two words */
#endif
    if (ask == NULL) {
        PyObject *tracemalloc = PyImport_ImportModule("_tracemalloc");
        ask = tracemalloc ? PyObject_GetAttrString(tracemalloc, "_get_object_traceback") : NULL;
        Py_XDECREF(tracemalloc);
        if (ask == NULL)
            return NULL;
    }
    return PyObject_CallOneArg(ask, op);
}

static PyMethodDef methods[] = {
    {"made_at", watch_made_at, METH_O, made_at_doc},
    {"figure", watch_figure, METH_O, figure_doc},
    {"slot", watch_slot, METH_VARARGS, slot_doc},
    {"open", watch_open, METH_VARARGS, open_doc},
    {"arm", watch_arm, METH_NOARGS, arm_doc},
    {"disarm", watch_disarm, METH_NOARGS, disarm_doc},
    {"results", watch_results, METH_NOARGS, results_doc},
    {"rises", watch_rises, METH_NOARGS, rises_doc},
    {"close", watch_close, METH_NOARGS, close_doc},
    {"in_fork", watch_in_fork, METH_O, in_fork_doc},
    {"after_fork", watch_after_fork, METH_NOARGS, "Called in the child."},
    {"trace_allocations", watch_trace_allocations, METH_O, trace_allocations_doc},
#if PY_VERSION_HEX >= 0x030C0000
    {"on_line", (PyCFunction)(void (*)(void))on_line, METH_FASTCALL, NULL},
    {"on_start", (PyCFunction)(void (*)(void))on_start, METH_FASTCALL, NULL},
    {"on_end", (PyCFunction)(void (*)(void))on_end, METH_FASTCALL, NULL},
    {"on_throw", (PyCFunction)(void (*)(void))on_throw, METH_FASTCALL, NULL},
    {"on_unwind", (PyCFunction)(void (*)(void))on_unwind, METH_FASTCALL, NULL},
#endif
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "flatwater.memory._watch", "Lines that change containers; use flatwater.memory.maker.", -1,
    methods, NULL, NULL, NULL, NULL,
};

static int
find_names(void)
{
    PyObject *collections = PyImport_ImportModule("_collections");
    PyObject *deque = collections ? PyObject_GetAttrString(collections, "deque") : NULL;
    Py_XDECREF(collections);
    if (deque == NULL || !PyType_Check(deque))
        return -1;
    deque_type = (PyTypeObject *)deque;
#if PY_VERSION_HEX >= 0x030C0000
    PyObject *monitoring = PySys_GetObject("monitoring"); /* borrowed */
    disable = monitoring ? PyObject_GetAttrString(monitoring, "DISABLE") : NULL;
    if (disable == NULL)
        return -1;
#endif
    return 0;
}

PyMODINIT_FUNC
PyInit__watch(void)
{
    static int registered;
    if (find_names() < 0)
        return NULL;
    if (!registered)
        registered = pthread_atfork(NULL, NULL, in_child) == 0;
    return PyModule_Create(&definition);
}
