/* The scenarios, their presets and the command line. */
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TAG = 16 }; /* bytes of a workload that say which job it is */

enum scenario { BACKGROUND, DRAIN, FOREGROUND, ONEATATIME, ECHO, FLOOD, SCENARIOS };

static const struct { const char *name; int clients, workers, outstanding; } presets[SCENARIOS] = {
    [BACKGROUND] = {"background", 4, 0, 64}, [DRAIN] = {"drain", 1, 4, 256},  [FOREGROUND] = {"foreground", 4, 4, 16},
    [ONEATATIME] = {"oneatatime", 1, 1, 1},  [ECHO] = {"echo", 1, 0, 1},      [FLOOD] = {"flood", 200, 0, 256},
};

static struct {
    enum scenario scenario;
    const char *host, *port, *function, *mix;
    double seconds, warmup, interval, timeout;
    long clients, workers, outstanding, size, backlog, unique, keep, idle, functions;
    bool handshake, tls, empty;
} opt = {.scenario = SCENARIOS, .host = "127.0.0.1", .port = "4730", .function = "bench", .mix = "both",
         .seconds = 3, .warmup = 0.3, .timeout = 10, .clients = -1, .workers = -1, .outstanding = -1,
         .size = 64, .backlog = 20000, .functions = 1};

/* ---- command line ----------------------------------------------------------------------------------- */

static const char usage[] =
    "usage: loadgen --scenario NAME [--host ADDRESS] [--port N] [options]\n"
    "  scenarios: background drain foreground oneatatime echo flood\n"
    "  --seconds S       length of the measured part (3)\n"
    "  --warmup S        the same load for so long before, unmeasured (0.3)\n"
    "  --clients N       connections that ask (4, drain 1, oneatatime 1, echo 1, flood 200)\n"
    "  --workers N       connections that work (4, oneatatime 1)\n"
    "  --outstanding N   unanswered requests per client (background 64, foreground 16, drain and flood 256, else 1)\n"
    "  --size BYTES      workload and result (64, at least 16)\n"
    "  --unique BYTES    length of the unique, 0 for none (0)\n"
    "  --backlog N       drain: jobs per filling; fillings are repeated until --seconds were measured (20000)\n"
    "  --keep N          drain: so many jobs stay queued all the time; filling them is timed in ten parts (0)\n"
    "  --empty           drain: hand out what --keep left, measured in 5 backlogs each when all, half and the last are queued\n"
    "  --idle N          so many more workers of another function, connected and asleep all the time (0)\n"
    "  --functions N     jobs go round over so many functions, which every worker knows (1)\n"
    "  --tls             TLS 1.3; the certificate is not looked at\n"
    "  --interval S      one request per client every S seconds instead of as fast as answers come\n"
    "  --mix WHAT        flood: echo, submit or both (both)\n"
    "  --function NAME   (bench)\n"
    "  --timeout S       give up when nothing was answered for so long (10)\n"
    "  --handshake       print begin and end around each measured window and wait for a line after each\n";

static __attribute__((noreturn)) void misused(const char *what, const char *value)
{
    fprintf(stderr, "loadgen: %s %s\n%s", what, value, usage);
    exit(2);
}

static double number(const char *option, const char *text, double least, double most)
{
    char *end;
    double value = strtod(text, &end);
    if (*end || end == text || !(value >= least && value <= most)) misused(option, text);
    return value;
}

static void parse(int argc, char **argv)
{
    static const struct option options[] = {
        {"scenario", 1, 0, 's'}, {"host", 1, 0, 'h'}, {"port", 1, 0, 'p'}, {"seconds", 1, 0, 'S'}, {"warmup", 1, 0, 'W'},
        {"clients", 1, 0, 'c'}, {"workers", 1, 0, 'w'}, {"outstanding", 1, 0, 'o'}, {"size", 1, 0, 'z'}, {"unique", 1, 0, 'u'},
        {"backlog", 1, 0, 'b'}, {"interval", 1, 0, 'i'}, {"mix", 1, 0, 'm'}, {"function", 1, 0, 'f'}, {"timeout", 1, 0, 't'},
        {"handshake", 0, 0, 'H'}, {"keep", 1, 0, 'k'}, {"idle", 1, 0, 'I'}, {"functions", 1, 0, 'F'}, {"tls", 0, 0, 'T'}, {"empty", 0, 0, 'E'},
        {"help", 0, 0, '?'}, {0, 0, 0, 0}};
    int c;
    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (c) {
        case 's':
            for (opt.scenario = 0; opt.scenario < SCENARIOS && strcmp(presets[opt.scenario].name, optarg); opt.scenario++) {}
            if (opt.scenario == SCENARIOS) misused("no such scenario:", optarg);
            break;
        case 'h': opt.host = optarg; break;
        case 'p': opt.port = optarg; break;
        case 'S': opt.seconds = number("--seconds", optarg, 0.001, 86400); break;
        case 'W': opt.warmup = number("--warmup", optarg, 0, 3600); break;
        case 'c': opt.clients = (long)number("--clients", optarg, 1, 60000); break;
        case 'w': opt.workers = (long)number("--workers", optarg, 1, 60000); break;
        case 'o': opt.outstanding = (long)number("--outstanding", optarg, 1, 1e6); break;
        case 'z': opt.size = (long)number("--size", optarg, TAG, 1e9); break;
        case 'u': opt.unique = (long)number("--unique", optarg, 0, 63); break;
        case 'b': opt.backlog = (long)number("--backlog", optarg, 1, 1e9); break;
        case 'i': opt.interval = number("--interval", optarg, 0, 3600); break;
        case 'm': opt.mix = optarg; break;
        case 'f': opt.function = optarg; break;
        case 't': opt.timeout = number("--timeout", optarg, 0.1, 3600); break;
        case 'H': opt.handshake = true; break;
        case 'k': opt.keep = (long)number("--keep", optarg, 0, 1e8); break;
        case 'I': opt.idle = (long)number("--idle", optarg, 0, 60000); break;
        case 'F': opt.functions = (long)number("--functions", optarg, 1, 1e6); break;
        case 'T': opt.tls = true; break;
        case 'E': opt.empty = true; break;
        default: misused("", "");
        }
    }
    if (optind < argc) misused("unexpected:", argv[optind]);
    if (opt.scenario == SCENARIOS) misused("--scenario is missing", "");
    if (strlen(opt.function) > 60) misused("--function of more than 60 bytes:", opt.function);
    if (opt.unique && opt.unique < 16) misused("--unique below 16 would not be unique:", "");
    if (strcmp(opt.mix, "echo") && strcmp(opt.mix, "submit") && strcmp(opt.mix, "both")) misused("--mix", opt.mix);
    if (opt.empty && opt.keep < 15 * opt.backlog) misused("--empty with a --keep of less than 15 backlogs", "");
    if (opt.clients < 0) opt.clients = presets[opt.scenario].clients;
    if (opt.workers < 0 || !presets[opt.scenario].workers) opt.workers = presets[opt.scenario].workers;
    if (opt.outstanding < 0) opt.outstanding = presets[opt.scenario].outstanding;
}

