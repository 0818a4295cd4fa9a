/* Starts one thread of ours in another process, and leaves no other mark there.
 *
 * flatwater.memory.inject loads this library into Flatwater's own process with ctypes; it is never loaded into the
 * process that is examined, and it does not use Python, so one build serves every version.
 *
 * What happens to the other process:
 *   1. One of its threads is stopped (PTRACE_SEIZE and PTRACE_INTERRUPT: no signal is sent) until it is found at a
 *      safe point: waiting in a system call that a program waits in, or in the interpreter's own code. There it holds
 *      no lock of malloc or of the dynamic loader; a thread stopped elsewhere is let go at once and tried again.
 *   2. With its registers (vector registers too) and signal mask saved, it makes two mappings and calls pthread_create
 *      on a stack of ours, and is put back exactly as it was. No byte of the program's own code or data is changed.
 *      Signals that arrive meanwhile stay pending.
 *   3. The new thread blocks all signals, waits for the word to go, takes the GIL as any C thread does
 *      (PyGILState_Ensure), runs the given Python source in a fresh dict, unmaps what was mapped, and ends.
 *
 * So no Python and no dlopen runs in a thread that was stopped at an arbitrary place; an idle main thread need not be
 * woken; and the interpreter that a thread is stopped in may be busy.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
#define PAGE 65536UL          /* a multiple of every page size in use */
#define STACK (256UL << 10)   /* pthread_create needs a few kB of it */
#define MAX_RANGES 32
#define CALL_S 5.0            /* pthread_create takes well below a millisecond */

enum { WAITING, GO, CANCEL };                              /* Work.go, written by us */
enum { STARTED = 1, ASKING, RUNNING, NOT_READY, DONE };    /* Work.state, written by the thread */
enum { OK, NOT_SAFE, STOPPED, GONE, REFUSED, NO_MEMORY, NO_THREAD, BROKEN }; /* Order.result */

/* Shared by the thread in the other process and us. The assembly knows the first five places. */
typedef struct {
    void *data;
    size_t data_size;
    void *code;
    size_t code_size;
    int (*munmap)(void *, size_t);
    unsigned long (*self)(void);
    int (*detach)(unsigned long);
    int (*nap)(unsigned);
    int (*initialized)(void);
    int (*finalizing)(void);
    int (*ensure)(void);
    void (*release)(int);
    void *(*dict)(void);
    void *(*run)(const char *, int, void *, void *);
    void (*decref)(void *);
    void (*clear)(void);
    const char *source;
    volatile uint32_t go;
    volatile uint32_t state;
} Work;

typedef struct {
    int32_t pid;
    int32_t tid;
    double wait_s;                    /* how long to look for a safe point */
    uint64_t syscall_at;              /* a system call instruction in the other process */
    uint64_t pthread_create;
    uint64_t ranges[2 * MAX_RANGES];  /* code in which a running thread may be stopped */
    uint64_t range_count;
    const char *source;
    uint64_t source_size;             /* with the final zero */
    Work work;                        /* functions of the other process; the rest is filled in here */
    uint64_t work_at;                 /* out: where Work is in the other process */
    int32_t result;
    int32_t error;                    /* errno, or the signal that broke it */
    double stopped_s;                 /* out: how long the thread stood still */
    int32_t tries;
    int32_t reserved;
} Order;

/* ---- what runs in the other process: self-contained, copied there byte by byte ---- */

#define GUEST __attribute__((section("guest"), noinline, used, optimize("no-stack-protector")))
extern const char __start_guest[], __stop_guest[], guest_entry[], guest_trap[];

GUEST static void
guest_run(Work *work)
{
    work->detach(work->self());
    work->state = STARTED;
    for (int tries = 0; work->go == WAITING && tries < 5000; tries++)
        work->nap(1000);
    if (work->go != GO)
        return;
    if (!work->initialized() || (work->finalizing && work->finalizing())) {
        work->state = NOT_READY;
        for (int tries = 0; work->go == GO && tries < 1000; tries++)
            work->nap(1000);
        return;
    }
    work->state = ASKING;
    int held = work->ensure();
    if (work->go == GO) {
        work->state = RUNNING;
        void *globals = work->dict();
        void *result = globals ? work->run(work->source, 257 /* Py_file_input */, globals, globals) : 0;
        if (result)
            work->decref(result);
        else
            work->clear();
        if (globals)
            work->decref(globals);
    }
    work->release(held);
    work->state = DONE;
}

/* Runs guest_run, then unmaps the data and, by a jump that does not come back here, this code itself. */
#if defined(__x86_64__)
__asm__(".pushsection guest,\"ax\",@progbits\n"
        ".globl guest_entry, guest_trap\n"
        ".hidden guest_entry\n.hidden guest_trap\n"
        "guest_entry:\n"
        "  push %rbx\n  push %r12\n  push %r13\n"
        "  mov %rdi, %rbx\n"
        "  call guest_run\n"
        "  mov 0(%rbx), %rdi\n  mov 8(%rbx), %rsi\n  mov 16(%rbx), %r12\n  mov 24(%rbx), %r13\n"
        "  mov 32(%rbx), %rbx\n"
        "  call *%rbx\n"
        "  mov %r12, %rdi\n  mov %r13, %rsi\n  mov %rbx, %rax\n"
        "  pop %r13\n  pop %r12\n  pop %rbx\n"
        "  jmp *%rax\n"
        "guest_trap:\n  int3\n"
        ".popsection\n");
typedef struct user_regs_struct Registers;
#define VECTOR_NOTE 0x202 /* NT_X86_XSTATE */
#define PC(r) ((r)->rip)
#define CALL_NUMBER(r) ((long)(r)->orig_rax)
#define RETURNED(r) ((long)(r)->rax)
#define ARGUMENT_2(r) ((r)->rsi)
#define TRAP_LENGTH 1
#elif defined(__aarch64__)
__asm__(".pushsection guest,\"ax\",@progbits\n"
        ".globl guest_entry, guest_trap\n"
        ".hidden guest_entry\n.hidden guest_trap\n"
        "guest_entry:\n"
        "  stp x29, x30, [sp, #-48]!\n  stp x19, x20, [sp, #16]\n  str x21, [sp, #32]\n"
        "  mov x19, x0\n"
        "  bl guest_run\n"
        "  ldr x0, [x19]\n  ldr x1, [x19, #8]\n  ldr x20, [x19, #16]\n  ldr x21, [x19, #24]\n"
        "  ldr x19, [x19, #32]\n"
        "  blr x19\n"
        "  mov x0, x20\n  mov x1, x21\n  mov x2, x19\n"
        "  ldr x21, [sp, #32]\n  ldp x19, x20, [sp, #16]\n  ldp x29, x30, [sp], #48\n"
        "  br x2\n"
        "guest_trap:\n  brk #0\n"
        ".popsection\n");
typedef struct user_regs_struct Registers;
#define VECTOR_NOTE NT_PRFPREG
#define PC(r) ((r)->pc)
#define CALL_NUMBER(r) ((long)(r)->regs[8])
#define RETURNED(r) ((long)(r)->regs[0])
#define ARGUMENT_2(r) ((r)->regs[1])
#define TRAP_LENGTH 0
#else
#error "flatwater: threads can be started in other processes on x86-64 and aarch64 only"
#endif

/* ---- what runs here ---- */

typedef struct {
    Order *order;
    pid_t tid;
    int memory;             /* /proc/PID/mem */
    Registers saved;
    uint8_t vectors[16384]; /* AMX has 8 kB of it */
    size_t vectors_size;
    uint64_t mask;
    int again[8];           /* signals to send once more when done */
    int again_count;
} Trace;

static double
now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static void
nap_us(long us)
{
    struct timespec time = {us / 1000000, us % 1000000 * 1000};
    nanosleep(&time, NULL);
}

static int
fail(Trace *trace, int result, int error)
{
    trace->order->result = result;
    trace->order->error = error;
    return -1;
}

/* Waits for the thread's next stop: 1, 0 when the time is over, -1 when it is gone. */
static int
stop_of(Trace *trace, int *status, double until)
{
    for (int tries = 0;; tries++) {
        pid_t got = waitpid(trace->tid, status, __WALL | WNOHANG);
        if (got == trace->tid)
            return WIFSTOPPED(*status) ? 1 : fail(trace, GONE, 0);
        if (got < 0 && errno != EINTR)
            return fail(trace, GONE, errno);
        if (now() > until)
            return 0;
        if (tries < 50)
            sched_yield();
        else
            nap_us(50);
    }
}

static int
registers_get(Trace *trace, Registers *registers)
{
    struct iovec vector = {registers, sizeof(*registers)};
    return ptrace(PTRACE_GETREGSET, trace->tid, NT_PRSTATUS, &vector) == 0 ? 0 : fail(trace, GONE, errno);
}

static int
registers_set(Trace *trace, Registers *registers)
{
    struct iovec vector = {registers, sizeof(*registers)};
    return ptrace(PTRACE_SETREGSET, trace->tid, NT_PRSTATUS, &vector) == 0 ? 0 : fail(trace, GONE, errno);
}

/* System calls in which programs wait; nothing in malloc or the loader waits in one of them (glibc's own locks wait
 * with FUTEX_WAIT, its semaphores and conditions with FUTEX_WAIT_BITSET). */
static int
waits_in(long number, unsigned long second)
{
    switch (number) {
    case SYS_futex:
        return (second & 127) == 9 /* FUTEX_WAIT_BITSET */;
    case SYS_read: case SYS_write: case SYS_readv: case SYS_writev:
    case SYS_pselect6: case SYS_ppoll: case SYS_epoll_pwait:
    case SYS_nanosleep: case SYS_clock_nanosleep:
    case SYS_accept: case SYS_accept4: case SYS_connect:
    case SYS_recvfrom: case SYS_recvmsg: case SYS_recvmmsg: case SYS_sendto: case SYS_sendmsg:
    case SYS_wait4: case SYS_waitid: case SYS_flock:
    case SYS_rt_sigtimedwait: case SYS_rt_sigsuspend: case SYS_semtimedop:
#ifdef SYS_poll
    case SYS_poll: case SYS_select: case SYS_pause: case SYS_epoll_wait:
#endif
#ifdef SYS_epoll_pwait2
    case SYS_epoll_pwait2:
#endif
#ifdef SYS_io_uring_enter
    case SYS_io_uring_enter:
#endif
        return 1;
    default:
        return 0;
    }
}

static int
is_safe(Trace *trace, Registers *registers)
{
    Order *order = trace->order;
    long returned = RETURNED(registers);
    int interrupted = returned == -EINTR || (returned <= -512 && returned >= -516); /* -ERESTART… of the kernel */
#if defined(__aarch64__)
    /* The kernel has forgotten the number and, to begin the call again, put the registers back to before it. */
    uint32_t code[2] = {0, 0};
    if (pread(trace->memory, code, sizeof(code), (off_t)(PC(registers) - 4)) != sizeof(code))
        return 0;
    int in_call = code[1] == 0xd4000001U || (code[0] == 0xd4000001U && interrupted);
    interrupted = 1;
#else
    int in_call = CALL_NUMBER(registers) >= 0;
#endif
    if (in_call && interrupted)
        return waits_in(CALL_NUMBER(registers), ARGUMENT_2(registers));
    for (uint64_t number = 0; number < order->range_count; number++)
        if (PC(registers) >= order->ranges[2 * number] && PC(registers) < order->ranges[2 * number + 1])
            return 1;
    return 0;
}

/* Stops the thread at a safe point: 0, else -1 with the result set. It then runs on, traced. */
static int
stop_safely(Trace *trace)
{
    double until = now() + trace->order->wait_s;
    do {
        int status;
        if (ptrace(PTRACE_INTERRUPT, trace->tid, 0, 0) != 0)
            return fail(trace, GONE, errno);
        for (;;) {
            int stopped = stop_of(trace, &status, until + 1);
            if (stopped < 0)
                return -1;
            if (stopped == 0)
                return fail(trace, NOT_SAFE, 0);
            if (status >> 16 == PTRACE_EVENT_STOP)
                break;
            if (ptrace(PTRACE_CONT, trace->tid, 0, (long)WSTOPSIG(status)) != 0) /* a signal on its way: let it in */
                return fail(trace, GONE, errno);
        }
        if (WSTOPSIG(status) != SIGTRAP) {
            ptrace(PTRACE_LISTEN, trace->tid, 0, 0);
            return fail(trace, STOPPED, 0);
        }
        trace->order->tries++;
        if (registers_get(trace, &trace->saved) < 0)
            return -1;
        if (is_safe(trace, &trace->saved))
            return 0;
        if (ptrace(PTRACE_CONT, trace->tid, 0, 0) != 0)
            return fail(trace, GONE, errno);
        nap_us(300 + rand() % 1000);
    } while (now() < until);
    return fail(trace, NOT_SAFE, 0);
}

/* Lets the thread run until its next trap. Other signals are kept for later; a fault is a failure. */
static int
run_to_trap(Trace *trace, enum __ptrace_request how)
{
    double until = now() + CALL_S;
    for (;;) {
        int status;
        if (ptrace(how, trace->tid, 0, 0) != 0)
            return fail(trace, GONE, errno);
        int stopped = stop_of(trace, &status, until);
        if (stopped < 0)
            return -1;
        if (stopped == 0) {
            ptrace(PTRACE_INTERRUPT, trace->tid, 0, 0);
            stop_of(trace, &status, now() + 1);
            return fail(trace, BROKEN, ETIMEDOUT);
        }
        if (status >> 16 == PTRACE_EVENT_STOP) /* the whole process was stopped meanwhile: it will be when we leave */
            continue;
        int signal = WSTOPSIG(status);
        if (signal == SIGTRAP)
            return 0;
        if (signal == SIGSEGV || signal == SIGBUS || signal == SIGILL || signal == SIGFPE || signal == SIGSYS)
            return fail(trace, BROKEN, signal);
        if (trace->again_count < 8)
            trace->again[trace->again_count++] = signal;
    }
}

static int
remote_syscall(Trace *trace, long number, const uint64_t *arguments, long *returned)
{
    Registers registers = trace->saved;
#if defined(__x86_64__)
    registers.rip = trace->order->syscall_at;
    registers.rax = (unsigned long long)number;
    registers.orig_rax = (unsigned long long)-1;
    registers.rdi = arguments[0];
    registers.rsi = arguments[1];
    registers.rdx = arguments[2];
    registers.r10 = arguments[3];
    registers.r8 = arguments[4];
    registers.r9 = arguments[5];
#else
    registers.pc = trace->order->syscall_at;
    registers.regs[8] = (uint64_t)number;
    for (int place = 0; place < 6; place++)
        registers.regs[place] = arguments[place];
#endif
    if (registers_set(trace, &registers) < 0 || run_to_trap(trace, PTRACE_SINGLESTEP) < 0
            || registers_get(trace, &registers) < 0)
        return -1;
    *returned = RETURNED(&registers);
    return 0;
}

static int
remote_call(Trace *trace, uint64_t function, const uint64_t *arguments, uint64_t stack, uint64_t back, long *returned)
{
    Registers registers = trace->saved;
#if defined(__x86_64__)
    stack = (stack & ~15UL) - 8;
    if (pwrite(trace->memory, &back, sizeof(back), (off_t)stack) != sizeof(back))
        return fail(trace, BROKEN, errno);
    registers.rip = function;
    registers.rsp = stack;
    registers.rbp = 0;
    registers.rax = 0;
    registers.orig_rax = (unsigned long long)-1;
    registers.eflags &= ~0x500ULL; /* neither single steps nor backward strings */
    registers.rdi = arguments[0];
    registers.rsi = arguments[1];
    registers.rdx = arguments[2];
    registers.rcx = arguments[3];
#else
    registers.pc = function;
    registers.sp = stack & ~15UL;
    registers.regs[29] = 0;
    registers.regs[30] = back;
    for (int place = 0; place < 4; place++)
        registers.regs[place] = arguments[place];
#endif
    if (registers_set(trace, &registers) < 0 || run_to_trap(trace, PTRACE_CONT) < 0
            || registers_get(trace, &registers) < 0)
        return -1;
    if (PC(&registers) != back + TRAP_LENGTH)
        return fail(trace, BROKEN, SIGTRAP);
    *returned = RETURNED(&registers);
    return 0;
}

static int
keep(Trace *trace)
{
    struct iovec vector = {trace->vectors, sizeof(trace->vectors)};
    if (ptrace(PTRACE_GETREGSET, trace->tid, VECTOR_NOTE, &vector) != 0
            || ptrace(PTRACE_GETSIGMASK, trace->tid, sizeof(trace->mask), &trace->mask) != 0)
        return fail(trace, GONE, errno);
    trace->vectors_size = vector.iov_len;
    uint64_t faults = 1ULL << (SIGTRAP - 1) | 1ULL << (SIGSEGV - 1) | 1ULL << (SIGBUS - 1) | 1ULL << (SIGILL - 1)
                      | 1ULL << (SIGFPE - 1) | 1ULL << (SIGSYS - 1);
    uint64_t blocked = ~faults; /* the kernel would take a handler away for a fault that is blocked */
    return ptrace(PTRACE_SETSIGMASK, trace->tid, sizeof(blocked), &blocked) == 0 ? 0 : fail(trace, GONE, errno);
}

static void
put_back(Trace *trace)
{
    struct iovec vector = {trace->vectors, trace->vectors_size};
    ptrace(PTRACE_SETREGSET, trace->tid, VECTOR_NOTE, &vector);
    ptrace(PTRACE_SETSIGMASK, trace->tid, sizeof(trace->mask), &trace->mask);
    struct iovec registers = {&trace->saved, sizeof(trace->saved)};
    ptrace(PTRACE_SETREGSET, trace->tid, NT_PRSTATUS, &registers);
}

static uint64_t
map(Trace *trace, uint64_t size, int protection)
{
    uint64_t arguments[6] = {0, size, (uint64_t)protection, MAP_PRIVATE | MAP_ANONYMOUS, (uint64_t)-1, 0};
    long at;
    if (remote_syscall(trace, SYS_mmap, arguments, &at) < 0)
        return 0;
    if (at < 0 && at > -4096) {
        fail(trace, NO_MEMORY, (int)-at);
        return 0;
    }
    return (uint64_t)at;
}

static void
unmap(Trace *trace, uint64_t at, uint64_t size)
{
    uint64_t arguments[6] = {at, size, 0, 0, 0, 0};
    Order kept = *trace->order;
    long ignored;
    if (at != 0)
        remote_syscall(trace, SYS_munmap, arguments, &ignored);
    trace->order->result = kept.result;
    trace->order->error = kept.error;
}

/* Fills the two mappings and starts the thread. */
static int
start(Trace *trace, uint64_t code, uint64_t data, uint64_t size)
{
    Order *order = trace->order;
    Work work = order->work;
    uint64_t guest_size = (uint64_t)(__stop_guest - __start_guest);
    uint64_t source = data + sizeof(Work);
    work.data = (void *)data;
    work.data_size = size;
    work.code = (void *)code;
    work.code_size = PAGE;
    work.source = (const char *)source;
    work.go = WAITING;
    work.state = 0;
    if (pwrite(trace->memory, __start_guest, guest_size, (off_t)code) != (ssize_t)guest_size
            || pwrite(trace->memory, &work, sizeof(work), (off_t)data) != (ssize_t)sizeof(work)
            || pwrite(trace->memory, order->source, order->source_size, (off_t)source)
               != (ssize_t)order->source_size)
        return fail(trace, NO_MEMORY, errno);
    uint64_t stack = data + size - 64;
    uint64_t entry = code + (uint64_t)(guest_entry - __start_guest), back = code + (uint64_t)(guest_trap - __start_guest);
    uint64_t arguments[4] = {stack, 0, entry, data};
    long returned;
    if (remote_call(trace, order->pthread_create, arguments, stack, back, &returned) < 0)
        return -1;
    if ((int)returned != 0)
        return fail(trace, NO_THREAD, (int)returned);
    order->work_at = data;
    return 0;
}

static void
work_in(Trace *trace)
{
    uint64_t size = (sizeof(Work) + trace->order->source_size + STACK + PAGE) & ~(PAGE - 1);
    double began = now();
    if (keep(trace) < 0)
        return;
    uint64_t code = map(trace, PAGE, PROT_READ | PROT_EXEC); /* written through /proc, so never writable and code */
    uint64_t data = code ? map(trace, size, PROT_READ | PROT_WRITE) : 0;
    if (data == 0 || start(trace, code, data, size) < 0) {
        if (trace->order->result != GONE && trace->order->result != BROKEN) {
            unmap(trace, data, size);
            unmap(trace, code, PAGE);
        }
    }
    put_back(trace);
    trace->order->stopped_s = now() - began;
}

/* Runs in a thread of its own: if anything goes wrong the kernel lets the traced thread go when this one ends. */
static void *
trace_main(void *argument)
{
    Order *order = argument;
    Trace *trace = calloc(1, sizeof(Trace));
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/mem", order->pid);
    if (trace == NULL)
        return NULL;
    trace->order = order;
    trace->tid = order->tid;
    trace->memory = open(path, O_RDWR | O_CLOEXEC);
    if (trace->memory < 0 || ptrace(PTRACE_SEIZE, order->tid, 0, 0) != 0)
        fail(trace, REFUSED, errno);
    else {
        if (stop_safely(trace) == 0)
            work_in(trace);
        ptrace(PTRACE_DETACH, order->tid, 0, 0);
        for (int number = 0; number < trace->again_count; number++)
            syscall(SYS_tgkill, order->pid, order->tid, trace->again[number]);
    }
    uint32_t go = GO;
    if (order->result == OK && pwrite(trace->memory, &go, sizeof(go), (off_t)(order->work_at + offsetof(Work, go))) < 0)
        fail(trace, GONE, errno);
    if (trace->memory >= 0)
        close(trace->memory);
    free(trace);
    return NULL;
}

/* Does what the order says; Order.result tells how it went. Takes at most wait_s and a few seconds. */
EXPORT void
flatwater_inject(Order *order)
{
    pthread_t thread;
    sigset_t all, before;
    order->result = OK;
    order->error = 0;
    order->tries = 0;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* our signals are for the threads that were there before */
    int error = pthread_create(&thread, NULL, trace_main, order);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error == 0)
        pthread_join(thread, NULL);
    else {
        order->result = BROKEN;
        order->error = error;
    }
}

/* Where inject.py finds the fields that change later, and that both mean the same struct. */
EXPORT const uint64_t flatwater_inject_layout[] = {
    sizeof(Order), sizeof(Work), offsetof(Work, go), offsetof(Work, state),
};
