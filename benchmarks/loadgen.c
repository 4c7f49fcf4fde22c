/* A load generator for Gearman servers: one thread, one epoll, no allocation while it measures.
 *
 * It is written in C so that it is never what is measured: the server is to be the slow side, and the
 * processor time spent here is printed beside every result so that a reader can check that it was.
 *
 * A run consists of windows. What lies outside of a window (connecting, registering, filling a backlog,
 * warming up) is neither timed nor counted. A window closes only when every request sent inside it has
 * been answered, so the jobs counted and the time taken belong together. With --handshake the words
 * "begin" and "end" are printed around each window ("idle" and "idled" around the connecting of idle
 * workers, "fill", "filling" and "filled" between the parts of a filling), and one line is awaited on
 * standard input after each, which lets the caller read the server's processor time at exactly these two moments.
 *
 * Every answer is checked: packet type, order of replies, handle, function, length and content. The
 * first wrong one ends the run with status 1; the result then carries it as "error".
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "meter.h"
#include "options.h"
#include "secret.h"

enum packet_type {
    CAN_DO = 1, PRE_SLEEP = 4, NOOP = 6, SUBMIT_JOB = 7, JOB_CREATED = 8, GRAB_JOB = 9, NO_JOB = 10,
    JOB_ASSIGN = 11, WORK_COMPLETE = 13, ECHO_REQ = 16, ECHO_RES = 17, SUBMIT_JOB_BG = 18, ERROR = 19,
};

enum { HEADER = 12, READ_CHUNK = 64 * 1024, MAX_HANDLE = 64, MAX_NAME = 96, IDLE_PATIENCE = 60 };

enum { LEVELS = 3, LEVEL_WINDOWS = 5 }; /* --empty: measured at so many levels, in so many windows each */

enum role { REQUESTER, WORKER };
enum kind { ASK_BACKGROUND, ASK_FOREGROUND, ASK_ECHO };
enum worker_state { ASLEEP, GRABBING, CLOSING };

/* One request that waits for its answer. A slot is in use from the request until its last packet. */
struct slot {
    uint64_t sent, sequence;
    enum kind kind;
    bool created;
    int handle_length;
    char handle[MAX_HANDLE];
};

struct buffer { uint8_t *data; size_t start, end, capacity; };

struct connection {
    int fd;
    SSL *tls;
    uint32_t number;
    enum role role;
    bool write_armed;
    struct buffer in, out;
    struct slot *slots;
    uint32_t *unanswered;           /* ring of slots in request order: replies must come in this order */
    uint64_t asked, answered;
    uint32_t *unused, unused_count; /* stack of free slots */
    uint64_t due;                   /* next send time when --interval paces the requests */
    uint64_t finished;
    enum worker_state state;
    uint64_t grab_sent;
};

static struct connection *connections;
static int connection_count, epoll_fd;
static bool issuing, holding;       /* may requesters ask? must woken workers wait for the window? */
static uint64_t in_flight, grabbing, sequence, limit, finished, drained, progress_at;
static uint8_t *seen;               /* drain: which of the backlog's jobs were handed out already */
static uint64_t seen_base, seen_room;
static double window_seconds, cpu_seconds;
static uint64_t windows, jobs;
static double fill_rates[10];       /* drain with --keep: submissions a second in each tenth of the filling */
static uint64_t handed, hand_out;   /* drain with --keep: grabs of this window so far, and how many there may be */
static struct { uint64_t queued, jobs; double seconds; } levels[LEVELS]; /* --empty: what was measured where */
static volatile sig_atomic_t enough; /* SIGTERM: end the window and print what there is */

static void result(const char *error);

static __attribute__((noreturn, format(printf, 1, 2))) void fail(const char *format, ...)
{
    char text[400];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    for (char *c = text; *c; c++)
        if (*c < ' ' || *c == '"' || *c == '\\' || *c > '~') *c = '?';
    result(text);
    fprintf(stderr, "loadgen: %s\n", text);
    exit(1);
}

static void result(const char *error)
{
    uint64_t least = UINT64_MAX, most = 0;
    for (int i = 0; i < connection_count; i++)
        if (connections[i].role == REQUESTER) {
            if (connections[i].finished < least) least = connections[i].finished;
            if (connections[i].finished > most) most = connections[i].finished;
        }
    if (least == UINT64_MAX) least = 0;
    printf("{\"scenario\": \"%s\", \"jobs\": %llu, \"seconds\": %.6f, \"rate\": %.1f, \"cpu_seconds\": %.6f, \"cpu_share\": %.4f, ",
           presets[opt.scenario].name, (unsigned long long)jobs, window_seconds, window_seconds > 0 ? (double)jobs / window_seconds : 0,
           cpu_seconds, window_seconds > 0 ? cpu_seconds / window_seconds : 0);
    if (samples)
        printf("\"latency_us\": {\"count\": %llu, \"p50\": %.1f, \"p95\": %.1f, \"p99\": %.1f, \"max\": %.1f}, ",
               (unsigned long long)samples, percentile_us(0.50), percentile_us(0.95), percentile_us(0.99), (double)slowest / 1000);
    else
        printf("\"latency_us\": null, ");
    if (opt.keep) {
        printf("\"fill_rates\": [");
        for (int i = 0; i < 10; i++) printf("%s%.1f", i ? ", " : "", fill_rates[i]);
        printf("], ");
    }
    if (opt.empty) {
        printf("\"levels\": [");
        for (int i = 0; i < LEVELS; i++)
            printf("%s{\"queued\": %llu, \"jobs\": %llu, \"seconds\": %.6f}", i ? ", " : "", (unsigned long long)levels[i].queued,
                   (unsigned long long)levels[i].jobs, levels[i].seconds);
        printf("], ");
    }
    printf("\"windows\": %llu, \"clients\": %ld, \"workers\": %ld, \"outstanding\": %ld, \"size\": %ld, "
           "\"keep\": %ld, \"idle\": %ld, \"functions\": %ld, \"least_per_client\": %llu, \"most_per_client\": %llu, \"errors\": %d, \"error\": ",
           (unsigned long long)windows, opt.clients, opt.workers, opt.outstanding, opt.size, opt.keep, opt.idle, opt.functions,
           (unsigned long long)least, (unsigned long long)most, error != NULL);
    if (error) printf("\"%s\"}\n", error);
    else printf("null}\n");
    fflush(stdout);
}

/* ---- buffers and sockets --------------------------------------------------------------------------- */

static uint8_t *reserve(struct buffer *b, size_t wanted)
{
    if (b->start == b->end) b->start = b->end = 0;
    if (b->capacity - b->end < wanted) {
        if (b->start) memmove(b->data, b->data + b->start, b->end - b->start);
        b->end -= b->start;
        b->start = 0;
        if (b->capacity - b->end < wanted) {
            b->capacity = (b->end + wanted) * 2;
            if (!(b->data = realloc(b->data, b->capacity))) fail("out of memory");
        }
    }
    return b->data + b->end;
}

static void put32(uint8_t *at, uint32_t value)
{
    value = htonl(value);
    memcpy(at, &value, 4);
}

static uint32_t get32(const uint8_t *at)
{
    uint32_t value;
    memcpy(&value, at, 4);
    return ntohl(value);
}

/* Starts a request in the connection's output; the caller fills in `size` bytes of payload. */
static uint8_t *put_request(struct connection *c, enum packet_type type, size_t size)
{
    uint8_t *at = reserve(&c->out, HEADER + size);
    memcpy(at, "\0REQ", 4);
    put32(at + 4, type);
    put32(at + 8, (uint32_t)size);
    c->out.end += HEADER + size;
    return at + HEADER;
}

static void arm(struct connection *c, bool write, int operation)
{
    struct epoll_event event = {.events = write ? EPOLLIN | EPOLLOUT : EPOLLIN, .data.ptr = c};
    if (epoll_ctl(epoll_fd, operation, c->fd, &event)) fail("epoll_ctl: %s", strerror(errno));
    c->write_armed = write;
}

static void flush(struct connection *c)
{
    while (c->out.start < c->out.end) {
        const uint8_t *from = c->out.data + c->out.start;
        size_t size = c->out.end - c->out.start;
        ssize_t sent = c->tls ? tls_send(c->tls, from, size) : send(c->fd, from, size, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0) {
            if (errno == EINTR) continue;
            if (errno != EAGAIN) fail("connection %u: send: %s", c->number, strerror(errno));
            break;
        }
        c->out.start += (size_t)sent;
    }
    bool waiting = c->out.start < c->out.end;
    if (waiting != c->write_armed) arm(c, waiting, EPOLL_CTL_MOD);
}

static void connect_one(struct connection *c, uint32_t number, enum role role, const struct addrinfo *where)
{
    int on = 1;
    *c = (struct connection){.number = number, .role = role, .state = ASLEEP};
    c->fd = socket(where->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0) fail("socket: %s", strerror(errno));
    if (connect(c->fd, where->ai_addr, where->ai_addrlen)) fail("connect to %s port %s: %s", opt.host, opt.port, strerror(errno));
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (opt.tls && !(c->tls = tls_connect(c->fd))) fail("connection %u: no TLS 1.3 with %s port %s", number, opt.host, opt.port);
    fcntl(c->fd, F_SETFL, fcntl(c->fd, F_GETFL) | O_NONBLOCK);
    reserve(&c->in, READ_CHUNK);
    if (role == REQUESTER) {
        size_t n = (size_t)opt.outstanding;
        c->slots = calloc(n, sizeof *c->slots);
        c->unanswered = calloc(n, sizeof *c->unanswered);
        c->unused = calloc(n, sizeof *c->unused);
        if (!c->slots || !c->unanswered || !c->unused) fail("out of memory");
        for (size_t i = 0; i < n; i++) c->unused[i] = (uint32_t)(n - 1 - i);
        c->unused_count = (uint32_t)n;
    }
    arm(c, false, EPOLL_CTL_ADD);
}

/* ---- requests --------------------------------------------------------------------------------------- */

static size_t put_name(char *at, uint64_t job)
{
    if (opt.functions == 1) return (size_t)sprintf(at, "%s", opt.function) + 1;
    return (size_t)sprintf(at, "%s%llu", opt.function, (unsigned long long)(job % (uint64_t)opt.functions)) + 1;
}

/* A workload names the connection, the slot and the job in its first bytes; the result repeats them. */
static void put_workload(uint8_t *at, uint32_t number, uint32_t slot, uint64_t job)
{
    size_t size = (size_t)opt.size;
    uint8_t tag[TAG];
    memcpy(tag, &number, 4);
    memcpy(tag + 4, &slot, 4);
    memcpy(tag + 8, &job, 8);
    memset(at, 'x', size);
    memcpy(at, tag, TAG);
}

static bool is_workload(const uint8_t *at, size_t size, uint32_t number, uint32_t slot, uint64_t job)
{
    return size == (size_t)opt.size && !memcmp(at, &number, 4) && !memcmp(at + 4, &slot, 4) && !memcmp(at + 8, &job, 8)
        && (size == TAG || (at[TAG] == 'x' && at[size - 1] == 'x'));
}

static enum kind next_kind(const struct connection *c)
{
    switch (opt.scenario) {
    case ECHO: return ASK_ECHO;
    case FOREGROUND: case ONEATATIME: return ASK_FOREGROUND;
    case FLOOD:
        if (!strcmp(opt.mix, "echo")) return ASK_ECHO;
        if (!strcmp(opt.mix, "submit")) return ASK_BACKGROUND;
        return c->asked & 1 ? ASK_BACKGROUND : ASK_ECHO;
    default: return ASK_BACKGROUND;
    }
}

static void ask(struct connection *c, uint64_t at)
{
    uint32_t index = c->unused[--c->unused_count];
    struct slot *s = &c->slots[index];
    *s = (struct slot){.sent = at, .sequence = sequence++, .kind = next_kind(c)};
    if (s->kind == ASK_ECHO) {
        put_workload(put_request(c, ECHO_REQ, (size_t)opt.size), c->number, index, s->sequence);
    } else {
        char function[MAX_NAME];
        size_t name = put_name(function, s->sequence), unique = (size_t)opt.unique;
        uint8_t *p = put_request(c, s->kind == ASK_FOREGROUND ? SUBMIT_JOB : SUBMIT_JOB_BG, name + unique + 1 + (size_t)opt.size);
        memcpy(p, function, name);
        p += name;
        for (size_t i = 0; i < unique; i++) p[i] = (uint8_t)('a' + (i < 16 ? s->sequence >> (4 * i) & 15 : i & 15));
        p[unique] = 0;
        put_workload(p + unique + 1, c->number, index, s->sequence);
    }
    c->unanswered[c->asked++ % (uint64_t)opt.outstanding] = index;
    if (!in_flight++) progress_at = at;
}

/* Sends what the connection may send now: as much as fits its window, or what is due when paced. */
static void ask_more(struct connection *c, uint64_t at)
{
    if (opt.interval > 0) {
        /* Measured from the moment the request was due, not from when it left: a server that stalls
         * would otherwise be asked less often just while it is slow. */
        for (; issuing && c->unused_count && c->due <= at; c->due += (uint64_t)(opt.interval * 1e9)) ask(c, c->due);
        return;
    }
    while (issuing && c->unused_count && sequence < limit) ask(c, at);
}

static void finish(struct connection *c, uint32_t index, uint64_t at)
{
    record(at > c->slots[index].sent ? at - c->slots[index].sent : 0);
    c->unused[c->unused_count++] = index;
    c->finished++;
    finished++;
    in_flight--;
}

/* ---- answers ---------------------------------------------------------------------------------------- */

static void requester_packet(struct connection *c, uint32_t type, const uint8_t *payload, size_t size, uint64_t at)
{
    if (type == WORK_COMPLETE && opt.scenario != FLOOD) {
        const uint8_t *end = memchr(payload, 0, size);
        if (!end) fail("WORK_COMPLETE without a result");
        size_t handle = (size_t)(end - payload), length = size - handle - 1;
        uint32_t index;
        if (length != (size_t)opt.size) fail("WORK_COMPLETE with %zu bytes of result, %ld expected", length, opt.size);
        memcpy(&index, end + 1 + 4, 4);
        if (index >= (uint32_t)opt.outstanding) fail("WORK_COMPLETE with somebody else's result");
        struct slot *s = &c->slots[index];
        if (!s->created || s->kind != ASK_FOREGROUND) fail("WORK_COMPLETE for a job that is not running");
        if (!is_workload(end + 1, length, c->number, index, s->sequence)) fail("WORK_COMPLETE with somebody else's result");
        if (handle != (size_t)s->handle_length || memcmp(payload, s->handle, handle)) fail("WORK_COMPLETE with another job's handle");
        s->created = false;
        finish(c, index, at);
        return;
    }
    if (c->answered == c->asked) fail("packet type %u though nothing was asked", type);
    uint32_t index = c->unanswered[c->answered++ % (uint64_t)opt.outstanding];
    struct slot *s = &c->slots[index];
    if (s->kind == ASK_ECHO) {
        if (type != ECHO_RES) fail("packet type %u in answer to ECHO_REQ", type);
        if (!is_workload(payload, size, c->number, index, s->sequence)) fail("ECHO_RES with other bytes than were sent");
        finish(c, index, at);
        return;
    }
    if (type != JOB_CREATED) fail("packet type %u in answer to a submission", type);
    if (size == 0 || size >= MAX_HANDLE) fail("JOB_CREATED with a handle of %zu bytes", size);
    if (memchr(payload, 0, size)) fail("JOB_CREATED with a NUL in its handle");
    if (s->kind == ASK_BACKGROUND) {
        finish(c, index, at);
        return;
    }
    s->created = true;
    s->handle_length = (int)size;
    memcpy(s->handle, payload, size);
}

static void grab(struct connection *c, uint64_t at)
{
    put_request(c, GRAB_JOB, 0);
    c->state = GRABBING;
    c->grab_sent = at;
    grabbing++;
    handed++;
}

static void worker_packet(struct connection *c, uint32_t type, const uint8_t *payload, size_t size, uint64_t at)
{
    if (type == NOOP) {
        /* It may also come while a GRAB_JOB is on its way; that request will find the job. */
        if (c->state == ASLEEP && !holding) grab(c, at);
        return;
    }
    if (type == ECHO_RES) {
        if (c->state == CLOSING) c->state = ASLEEP, grabbing--;
        return;
    }
    if (c->state != GRABBING) fail("packet type %u to a sleeping worker", type);
    c->state = ASLEEP;
    grabbing--;
    if (type == NO_JOB) {
        if (size) fail("NO_JOB with a payload");
        put_request(c, PRE_SLEEP, 0);
        return;
    }
    if (type != JOB_ASSIGN) fail("packet type %u in answer to GRAB_JOB", type);
    const uint8_t *end = memchr(payload, 0, size);
    if (!end) fail("JOB_ASSIGN without a function");
    size_t handle = (size_t)(end - payload);
    if (handle == 0 || handle >= MAX_HANDLE) fail("JOB_ASSIGN with a handle of %zu bytes", handle);
    const uint8_t *name_end = memchr(end + 1, 0, size - handle - 1);
    size_t name = name_end ? (size_t)(name_end - end) : 0;
    if (!name || size != handle + 1 + name + (size_t)opt.size) fail("JOB_ASSIGN of %zu bytes, %zu of workload expected", size, (size_t)opt.size);
    const uint8_t *workload = end + 1 + name;
    uint64_t job;
    char function[MAX_NAME];
    memcpy(&job, workload + 8, 8);
    if (put_name(function, job) != name || memcmp(end + 1, function, name)) fail("JOB_ASSIGN for another function");
    if (opt.scenario == DRAIN) {
        if (job < seen_base || job >= limit || seen[job - seen_base]++) fail("a job was handed out twice, or never submitted");
        drained++;
        c->finished++;
        record(at - c->grab_sent);
    }
    uint8_t *p = put_request(c, WORK_COMPLETE, handle + 1 + (size_t)opt.size);
    memcpy(p, payload, handle + 1);
    memcpy(p + handle + 1, workload, (size_t)opt.size);
    if (opt.keep && handed >= hand_out) {
        /* Enough for this window: an ECHO_RES shows that the WORK_COMPLETE was processed. */
        put_request(c, ECHO_REQ, 0);
        c->state = CLOSING;
        grabbing++;
        return;
    }
    grab(c, at);
}

static void readable(struct connection *c)
{
    struct buffer *b = &c->in;
    size_t wanted = READ_CHUNK;
    if (b->end - b->start >= HEADER && get32(b->data + b->start + 8) > wanted) wanted = get32(b->data + b->start + 8);
    uint8_t *into = reserve(b, wanted);
    ssize_t got = c->tls ? tls_recv(c->tls, into, b->capacity - b->end) : recv(c->fd, into, b->capacity - b->end, MSG_DONTWAIT);
    if (got == 0) fail("connection %u: closed by the server", c->number);
    if (got < 0) {
        if (errno == EAGAIN || errno == EINTR) return;
        fail("connection %u: recv: %s", c->number, strerror(errno));
    }
    b->end += (size_t)got;
    /* OpenSSL hands out one record at a time; what it keeps raises no event. */
    while (c->tls && tls_pending(c->tls)) {
        into = reserve(b, READ_CHUNK);
        if ((got = tls_recv(c->tls, into, b->capacity - b->end)) <= 0) break;
        b->end += (size_t)got;
    }
    uint64_t at = progress_at = now_ns();
    while (b->end - b->start >= HEADER) {
        const uint8_t *p = b->data + b->start;
        if (memcmp(p, "\0RES", 4)) fail("connection %u: not a response packet", c->number);
        uint32_t type = get32(p + 4), size = get32(p + 8);
        if (size > (size_t)opt.size + 65536) fail("packet type %u announces %u bytes", type, size);
        if (b->end - b->start < HEADER + (size_t)size) break;
        if (type == ERROR) {
            const char *code = (const char *)p + HEADER;
            int length = (int)strnlen(code, size), rest = (int)size - length - 1;
            fail("the server answered ERROR %.*s %.*s", length, code, rest > 0 ? rest : 0, code + length + 1);
        }
        b->start += HEADER + (size_t)size;
        if (c->role == WORKER) worker_packet(c, type, p + HEADER, size, at);
        else requester_packet(c, type, p + HEADER, size, at);
    }
    if (c->role == REQUESTER) ask_more(c, at);
    flush(c);
}

/* One turn of the loop: waits at most until `until`, or until the next paced request is due. */
static void turn(uint64_t until)
{
    struct epoll_event events[64];
    uint64_t now = now_ns();
    if (opt.interval > 0 && issuing)
        for (int i = 0; i < connection_count; i++) {
            struct connection *c = &connections[i];
            if (c->role != REQUESTER || !c->unused_count) continue;
            if (c->due <= now) { ask_more(c, now); flush(c); }
            if (c->unused_count && c->due < until) until = c->due;
        }
    uint64_t stalled = progress_at + (uint64_t)(opt.timeout * 1e9);
    if (now >= stalled && (in_flight || opt.interval == 0))
        fail("nothing from the server for %g s (%llu requests and %llu grabs unanswered, %llu of %llu jobs handed out)", opt.timeout,
             (unsigned long long)in_flight, (unsigned long long)grabbing, (unsigned long long)drained, (unsigned long long)sequence);
    uint64_t wait = until > now ? until - now : 0;
    if (opt.interval > 0) {
        /* epoll_wait counts in milliseconds, too coarse for requests that are due at a moment. */
        struct pollfd ready = {.fd = epoll_fd, .events = POLLIN};
        struct timespec pause = {.tv_sec = (time_t)(wait / 1000000000), .tv_nsec = (long)(wait % 1000000000)};
        ppoll(&ready, 1, &pause, NULL);
        wait = 0;
    }
    int n = epoll_wait(epoll_fd, events, 64, (int)((wait + 999999) / 1000000));
    if (n < 0 && errno != EINTR) fail("epoll_wait: %s", strerror(errno));
    for (int i = 0; i < n; i++) {
        struct connection *c = events[i].data.ptr;
        if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) readable(c);
        else if (events[i].events & EPOLLOUT) flush(c);
    }
}

#include "windows.h"
#include "idle.h"

static void on_term(int signal) { (void)signal; enough = 1; }

static void register_workers(void)
{
    char name[MAX_NAME];
    for (int i = 0; i < connection_count; i++) {
        struct connection *c = &connections[i];
        if (c->role != WORKER) continue;
        for (long f = 0; f < opt.functions; f++) {
            size_t size = put_name(name, (uint64_t)f) - 1;
            memcpy(put_request(c, CAN_DO, size), name, size);
        }
        grab(c, now_ns());
        flush(c);
    }
    wait_for_workers();
}

int main(int argc, char **argv)
{
    parse(argc, argv);
    if (opt.scenario != DRAIN) sigaction(SIGTERM, &(struct sigaction){.sa_handler = on_term, .sa_flags = SA_RESTART}, NULL);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *where;
    int wrong = getaddrinfo(opt.host, opt.port, &hints, &where);
    if (wrong) fail("%s port %s: %s", opt.host, opt.port, gai_strerror(wrong));
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    const char *untold = opt.tls ? tls_start() : NULL;
    if (untold) fail("--tls: %s", untold);
    connections = calloc((size_t)(opt.clients + opt.workers), sizeof *connections);
    seen = malloc((size_t)opt.backlog);
    if (opt.scenario != DRAIN) opt.keep = opt.empty = 0;
    if (!connections || !seen) fail("out of memory");
    while (connection_count < opt.clients + opt.workers) {
        connect_one(&connections[connection_count], (uint32_t)connection_count, connection_count < opt.clients ? REQUESTER : WORKER, where);
        connection_count++;
    }
    progress_at = now_ns();
    register_workers();
    if (opt.idle) connect_idle(where);
    freeaddrinfo(where);
    progress_at = now_ns();
    if (opt.scenario == DRAIN && opt.keep) fill(opt.keep);

    bool handshake = opt.handshake;
    if (opt.warmup > 0) {
        opt.handshake = false;
        if (opt.scenario == DRAIN) drain_window(opt.keep ? opt.backlog : (opt.backlog + 9) / 10);
        else timed_window(opt.warmup);
        opt.handshake = handshake;
        forget_figures();
    }
    if (opt.empty)
        empty_queue();
    else if (opt.scenario == DRAIN)
        while (window_seconds < opt.seconds) drain_window(opt.backlog);
    else
        timed_window(opt.seconds);
    result(NULL);
    return 0;
}
