/* The stretches that are timed, and what has to be done between them: filling backlogs, and the queue that stays.
 *
 * Included by loadgen.c behind what it needs of it. */

static void tell(const char *word)
{
    char line[64];
    if (!opt.handshake) return;
    puts(word);
    fflush(stdout);
    if (!fgets(line, sizeof line, stdin)) exit(1);
    progress_at = now_ns();
}

static void forget_figures(void)
{
    memset(histogram, 0, sizeof histogram);
    samples = slowest = jobs = windows = 0;
    window_seconds = cpu_seconds = 0;
    for (int i = 0; i < connection_count; i++) connections[i].finished = 0;
}

static void start_asking(void)
{
    uint64_t at = now_ns();
    issuing = true;
    for (int i = 0; i < connection_count; i++) {
        struct connection *c = &connections[i];
        if (c->role != REQUESTER) continue;
        /* Spread over the interval, so that several paced connections do not all fire at once. */
        c->due = at + (uint64_t)(opt.interval * 1e9 * i / connection_count);
        ask_more(c, at);
        flush(c);
    }
}

static void wait_for_workers(void)
{
    while (grabbing) turn(now_ns() + 100000000);
}

/* Asks for `seconds`, then waits for what is still unanswered. */
static void timed_window(double seconds)
{
    uint64_t before = finished, start, stop;
    tell("begin");
    double cpu = own_cpu();
    start = progress_at = now_ns();
    stop = start + (uint64_t)(seconds * 1e9);
    limit = UINT64_MAX;
    start_asking();
    while (issuing || in_flight) {
        turn(issuing ? stop : now_ns() + 100000000);
        if (issuing && (enough || now_ns() >= stop)) issuing = false;
    }
    window_seconds += (double)(now_ns() - start) / 1e9;
    cpu_seconds += own_cpu() - cpu;
    jobs += finished - before;
    windows++;
    wait_for_workers();
    tell("end");
}

/* What happens between these two leaves no trace in the figures. */
static struct { uint64_t histogram[BUCKETS], samples, slowest, jobs, windows; double seconds, cpu; } kept;

static void keep_figures(void)
{
    memcpy(kept.histogram, histogram, sizeof histogram);
    kept.samples = samples, kept.slowest = slowest, kept.jobs = jobs, kept.windows = windows;
    kept.seconds = window_seconds, kept.cpu = cpu_seconds;
}

static void restore_figures(void)
{
    memcpy(histogram, kept.histogram, sizeof histogram);
    samples = kept.samples, slowest = kept.slowest, jobs = kept.jobs, windows = kept.windows;
    window_seconds = kept.seconds, cpu_seconds = kept.cpu;
}

/* Lets the workers, who are asleep, do so many of the jobs that are queued. */
static void work_off(uint64_t count)
{
    tell("begin");
    double cpu = own_cpu();
    uint64_t start = progress_at = now_ns(), before = drained;
    handed = 0;
    hand_out = count;
    for (int i = 0; i < connection_count; i++)
        if (connections[i].role == WORKER && (!opt.keep || handed < hand_out)) { grab(&connections[i], start); flush(&connections[i]); }
    /* WORK_COMPLETE has no reply; the answer to the GRAB_JOB behind it shows that it was processed. */
    while (drained - before < count || grabbing) turn(now_ns() + 100000000);
    window_seconds += (double)(now_ns() - start) / 1e9;
    cpu_seconds += own_cpu() - cpu;
    jobs += drained - before;
    windows++;
    tell("end");
}

/* Fills a backlog unmeasured, then lets the workers empty it. The workers slept while it was filled and
 * were woken by it, as real ones would be; they grab when the window opens. */
static void drain_window(long backlog)
{
    holding = true;
    limit = sequence + (uint64_t)backlog;
    if (!opt.keep) {
        seen_base = sequence;
        memset(seen, 0, (size_t)backlog);
    } else if (limit > seen_room) {
        seen_room = limit * 2;
        if (!(seen = realloc(seen, seen_room))) fail("out of memory");
        memset(seen + sequence, 0, seen_room - sequence);
    }
    keep_figures();
    start_asking();
    while (sequence < limit || in_flight) turn(now_ns() + 100000000);
    issuing = false;
    restore_figures();
    holding = false;
    work_off((uint64_t)backlog);
}

/* Hands out what fill() left. It is measured at three levels: the whole queue, half of it, the last of it. */
static void empty_queue(void)
{
    uint64_t queued = (uint64_t)opt.keep, backlog = (uint64_t)opt.backlog, level = LEVEL_WINDOWS * backlog;
    const uint64_t from[LEVELS] = {queued, (queued + level) / 2, level};
    bool handshake = opt.handshake;
    for (int i = 0; i < LEVELS; i++) {
        if (queued > from[i]) {
            keep_figures();
            opt.handshake = false;
            work_off(queued - from[i]);
            opt.handshake = handshake;
            restore_figures();
        }
        levels[i].queued = queued = from[i];
        levels[i].jobs = jobs, levels[i].seconds = window_seconds;
        for (int window = 0; window < LEVEL_WINDOWS; window++, queued -= backlog) work_off(backlog);
        levels[i].jobs = jobs - levels[i].jobs, levels[i].seconds = window_seconds - levels[i].seconds;
    }
}

/* Jobs that stay queued while others are drained. Filling is timed in ten parts, each announced. */
static void fill(long keep)
{
    holding = true;
    seen_room = (uint64_t)keep + 1;
    if (!(seen = realloc(seen, seen_room))) fail("out of memory");
    memset(seen, 0, seen_room);
    for (int part = 0; part < 10; part++) {
        tell(part ? "filling" : "fill");
        uint64_t start = progress_at = now_ns(), before = sequence;
        limit = (uint64_t)keep * (uint64_t)(part + 1) / 10;
        start_asking();
        while (sequence < limit || in_flight) turn(now_ns() + 100000000);
        fill_rates[part] = (double)(sequence - before) / ((double)(now_ns() - start) / 1e9);
    }
    tell("filled");
    issuing = false;
    holding = false;
}
