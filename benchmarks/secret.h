/* TLS 1.3 between the generator and a server, where OpenSSL was there to build with.
 *
 * The certificate is not looked at: it is the server's work that is measured, and verifying is the
 * client's. Everything a connection has to send is one record, as the servers send what they have. */
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#ifdef WITH_TLS
#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>

static SSL_CTX *tls_context;

static const char *tls_start(void)
{
    tls_context = SSL_CTX_new(TLS_client_method());
    if (!tls_context) return "no OpenSSL context";
    SSL_CTX_set_min_proto_version(tls_context, TLS1_3_VERSION);
    SSL_CTX_set_mode(tls_context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
    return NULL;
}

/* The socket has to be blocking until this returns. */
static SSL *tls_connect(int fd)
{
    SSL *tls = SSL_new(tls_context);
    if (!tls || !SSL_set_fd(tls, fd) || SSL_connect(tls) != 1) return NULL;
    return tls;
}

static ssize_t tls_answer(SSL *tls, int done)
{
    int error = SSL_get_error(tls, done);
    ERR_clear_error();
    if (error == SSL_ERROR_ZERO_RETURN) return 0;
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) errno = EAGAIN;
    else if (error != SSL_ERROR_SYSCALL || !errno) errno = EPROTO;
    return -1;
}

static ssize_t tls_send(SSL *tls, const void *data, size_t size)
{
    int done = SSL_write(tls, data, (int)(size > 1 << 30 ? 1 << 30 : size));
    return done > 0 ? done : tls_answer(tls, done);
}

static ssize_t tls_recv(SSL *tls, void *into, size_t size)
{
    int done = SSL_read(tls, into, (int)(size > 1 << 30 ? 1 << 30 : size));
    return done > 0 ? done : tls_answer(tls, done);
}

static bool tls_pending(SSL *tls) { return SSL_pending(tls) > 0; }
#else
typedef void SSL;
static const char *tls_start(void) { return "it was built without OpenSSL: apt install libssl-dev"; }
static SSL *tls_connect(int fd) { (void)fd; return NULL; }
static ssize_t tls_send(SSL *tls, const void *data, size_t size) { (void)tls, (void)data, (void)size; return -1; }
static ssize_t tls_recv(SSL *tls, void *into, size_t size) { (void)tls, (void)into, (void)size; return -1; }
static bool tls_pending(SSL *tls) { (void)tls; return false; }
#endif
