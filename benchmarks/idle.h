/* Workers that are there and have nothing to do. They are served in turn, by blocking calls, and kept. */

static void idle_exchange(SSL *tls, int fd, uint8_t *data, size_t size, bool sending)
{
    uint64_t since = now_ns();
    while (size) {
        ssize_t done = tls ? (sending ? tls_send(tls, data, size) : tls_recv(tls, data, size))
                           : (sending ? send(fd, data, size, MSG_NOSIGNAL) : recv(fd, data, size, 0));
        /* A record that is none of ours (a ticket, say) may end a read with EAGAIN, too. */
        if (done < 0 && (errno == EINTR || (errno == EAGAIN && now_ns() - since < IDLE_PATIENCE * 1000000000ull))) continue;
        if (done < 0 && errno == EAGAIN) fail("nothing from the server for %d s to an idle worker", IDLE_PATIENCE);
        if (done <= 0) fail("an idle worker: %s", done ? strerror(errno) : "closed by the server");
        data += done;
        size -= (size_t)done;
    }
}

static void connect_idle(const struct addrinfo *where)
{
    static const char name[] = "bench-idle";
    struct timeval patience = {.tv_sec = IDLE_PATIENCE};
    int on = 1;
    uint8_t request[3 * HEADER + sizeof name], answer[HEADER];
    enum { NAME = sizeof name - 1 };
    memcpy(request, "\0REQ", 4), put32(request + 4, CAN_DO), put32(request + 8, NAME);
    memcpy(request + HEADER, name, NAME);
    memcpy(request + HEADER + NAME, "\0REQ", 4), put32(request + HEADER + NAME + 4, PRE_SLEEP), put32(request + HEADER + NAME + 8, 0);
    memcpy(request + 2 * HEADER + NAME, "\0REQ", 4), put32(request + 2 * HEADER + NAME + 4, ECHO_REQ), put32(request + 2 * HEADER + NAME + 8, 0);
    tell("idle");
    for (long i = 0; i < opt.idle; i++) {
        SSL *tls = NULL;
        int fd = socket(where->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0) fail("socket: %s", strerror(errno));
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
        /* Else what is behind the end of the handshake waits for the server's delayed acknowledgement. */
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        if (connect(fd, where->ai_addr, where->ai_addrlen)) fail("connect: %s", strerror(errno));
        if (opt.tls && !(tls = tls_connect(fd))) fail("idle worker %ld: no TLS 1.3", i);
        idle_exchange(tls, fd, request, 3 * HEADER + NAME, true);
        idle_exchange(tls, fd, answer, HEADER, false);
        if (memcmp(answer, "\0RES", 4) || get32(answer + 4) != ECHO_RES) fail("packet type %u to an idle worker", get32(answer + 4));
    }
    tell("idled");
}
