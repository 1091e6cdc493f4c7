/*
 * load: NFSv3 calls at full speed from one thread, for measuring servers.
 *
 *   load [-h ADDRESS] [-n NFSPORT] [-m MOUNTPORT] [-e EXPORT] [-c CONNECTIONS]
 *        [-q CALLS-IN-FLIGHT] [-t SECONDS] [-p SERVER-PID] OP [PATH [SIZE]]
 *
 * OP is getattr, lookup, access, read (PATH a file, read around and around in
 * pieces of SIZE), udpread (the same over UDP) or walk (READDIRPLUS over all
 * below PATH, and a READ of each file; ends when all is read).
 *
 * Prints one line: op calls seconds calls/s MB/s server-cpu-us-per-call.
 * The server's CPU time is read from /proc/PID/stat before and after. Every
 * reply's status and length is checked: a server that refuses is not a fast
 * one. Over TCP the bytes of read are thrown away in the kernel (MSG_TRUNC, tcp(7)):
 * else it is this program's copying that is measured.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { NFS = 100003, MOUNT = 100005, MAXCONN = 64, BUF = 4 << 20 };

struct handle { uint32_t len; unsigned char data[64]; };
struct work { int plus; struct handle fh; uint64_t cookie; unsigned char verf[8]; uint32_t size; };
struct conn {
	int fd, udp;
	size_t skip; /* bytes of the reply to be thrown away */
	unsigned char *in, *out;
	size_t inlen, outlen;
	int inflight;
	struct work slot[256]; /* by xid's low byte, for walk */
	int used[256];
};

static const char *host = "127.0.0.1", *export = "/", *op, *path = "";
static int nfsport = 2049, mountport = 20048, nconn = 1, depth = 16, pid;
static double seconds = 3;
static uint32_t size = 32768;
static struct conn conns[MAXCONN];
static struct handle target, parent;
static char leaf[256];
static uint64_t filesize, offset, calls, bytes;
static struct work *queue;
static size_t qhead, qtail, qcap;

static void die(const char *what) { fprintf(stderr, "load: %s: %s\n", what, errno ? strerror(errno) : "wrong answer"); exit(1); }

static double now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec + t.tv_nsec / 1e9; }

/* cpu is the server's user and system time in seconds (proc(5), fields 14 and 15). */
static double cpu(void)
{
	char name[64], text[1024], *p;
	unsigned long u, s;
	FILE *f;
	if (!pid) return 0;
	snprintf(name, sizeof name, "/proc/%d/stat", pid);
	if (!(f = fopen(name, "r")) || !fgets(text, sizeof text, f) || !(p = strrchr(text, ')'))) die(name);
	fclose(f);
	if (sscanf(p + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &u, &s) != 2) die(name);
	return (double)(u + s) / sysconf(_SC_CLK_TCK);
}

static unsigned char *put(unsigned char *p, uint32_t v) { v = htonl(v); memcpy(p, &v, 4); return p + 4; }
static uint32_t get(const unsigned char *p) { uint32_t v; memcpy(&v, p, 4); return ntohl(v); }
static uint64_t get64(const unsigned char *p) { return (uint64_t)get(p) << 32 | get(p + 4); }
static unsigned char *putbytes(unsigned char *p, const void *b, uint32_t n)
{
	p = put(p, n);
	memcpy(p, b, n);
	memset(p + n, 0, -n & 3);
	return p + n + (-n & 3);
}
static unsigned char *puthandle(unsigned char *p, const struct handle *h) { return putbytes(p, h->data, h->len); }
static const unsigned char *gethandle(const unsigned char *p, struct handle *h)
{
	h->len = get(p);
	if (h->len > 64) { errno = 0; die("a handle longer than 64 bytes"); }
	memcpy(h->data, p + 4, h->len);
	return p + 4 + h->len + (-h->len & 3);
}

/* head begins a call; AUTH_SYS as root, with no groups. */
static unsigned char *head(struct conn *c, unsigned char *p, uint32_t xid, uint32_t prog, uint32_t proc)
{
	if (!c->udp) p = put(p, 0);
	p = put(put(put(put(put(put(p, xid), 0), 2), prog), 3), proc);
	p = put(put(put(put(p, 1), 28), 0), 5);
	memcpy(p, "bench\0\0\0", 8);
	p = put(put(put(p + 8, 0), 0), 0);
	return put(put(p, 0), 0);
}

static void seal(struct conn *c, unsigned char *start, unsigned char *end)
{
	if (!c->udp) put(start, 0x80000000u | (uint32_t)(end - start - 4));
}

/* body skips the header of an accepted reply. */
static const unsigned char *body(const unsigned char *msg)
{
	errno = 0;
	if (get(msg + 4) != 1 || get(msg + 8) != 0 || get(msg + 20 + get(msg + 16)) != 0) die("the call was refused");
	return msg + 24 + get(msg + 16);
}

static int dial(int port, int udp)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)}, from = {.sin_family = AF_INET};
	int fd, one = 1, big = 4 << 20;
	inet_pton(AF_INET, host, &to.sin_addr);
	for (int p = 1023; p > 600; p--) { /* root's calls come from a reserved port */
		fd = socket(AF_INET, udp ? SOCK_DGRAM : SOCK_STREAM, 0);
		from.sin_port = htons(p);
		if (bind(fd, (void *)&from, sizeof from) && errno != EACCES) { close(fd); continue; }
		if (!connect(fd, (void *)&to, sizeof to)) break;
		if (errno != EADDRNOTAVAIL && errno != EADDRINUSE) die("connect");
		close(fd);
	}
	if (!udp) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &big, sizeof big);
	return fd;
}

static void openconn(struct conn *c, int port, int udp)
{
	c->fd = dial(port, udp);
	c->udp = udp;
	c->in = malloc(BUF);
	c->out = malloc(1 << 16);
	c->inlen = c->outlen = 0;
}

static void sendall(struct conn *c)
{
	size_t done = 0;
	while (done < c->outlen) {
		ssize_t n = write(c->fd, c->out + done, c->outlen - done);
		if (n < 0) die("write");
		done += n;
	}
	c->outlen = 0;
}

/* onecall does one call and gives its results; for setting up. */
static const unsigned char *onecall(struct conn *c, unsigned char *end)
{
	uint32_t want;
	seal(c, c->out, end);
	c->outlen = end - c->out;
	sendall(c);
	for (c->inlen = 0;;) {
		ssize_t n = read(c->fd, c->in + c->inlen, BUF - c->inlen);
		if (n <= 0) die("read");
		c->inlen += n;
		if (c->udp) { c->inlen = 0; return body(c->in); }
		want = get(c->in) & 0x7fffffff;
		if (c->inlen >= want + 4) { c->inlen = 0; return body(c->in + 4); }
	}
}

static void mountroot(struct handle *root)
{
	struct conn m = {0};
	const unsigned char *r;
	openconn(&m, mountport, 0);
	r = onecall(&m, putbytes(head(&m, m.out, 1, MOUNT, 1), export, strlen(export)));
	errno = 0;
	if (get(r)) { fprintf(stderr, "load: mounting %s: status %u\n", export, get(r)); exit(1); }
	gethandle(r + 4, root);
	close(m.fd);
}

/* resolve walks to path, keeping the last directory and name. */
static void resolve(struct conn *c)
{
	char copy[4096], *part;
	const unsigned char *r;
	mountroot(&target);
	parent = target;
	snprintf(copy, sizeof copy, "%s", path);
	for (part = strtok(copy, "/"); part; part = strtok(NULL, "/")) {
		parent = target;
		snprintf(leaf, sizeof leaf, "%s", part);
		r = onecall(c, putbytes(puthandle(head(c, c->out, 2, NFS, 3), &parent), part, strlen(part)));
		errno = 0;
		if (get(r)) { fprintf(stderr, "load: looking up %s: status %u\n", part, get(r)); exit(1); }
		r = gethandle(r + 4, &target);
		if (get(r)) filesize = get64(r + 24);
	}
}

static void enqueue(struct work w)
{
	if (qtail == qcap) queue = realloc(queue, (qcap = qcap ? qcap * 2 : 1024) * sizeof *queue);
	queue[qtail++] = w;
}

/* walkcall takes the next piece of a walk; 0 when there is none now. */
static unsigned char *walkcall(struct conn *c, unsigned char *p, uint32_t *xid)
{
	struct work w;
	int s;
	if (qhead == qtail) return 0;
	w = queue[qhead++];
	for (s = 0; c->used[s]; s++);
	c->used[s] = 1;
	c->slot[s] = w;
	*xid = (*xid & ~0xffu) | s;
	p = puthandle(head(c, p, *xid, NFS, w.plus ? 17 : 6), &w.fh);
	p = put(put(p, w.cookie >> 32), w.cookie);
	if (!w.plus) return put(p, w.size);
	memcpy(p, w.verf, 8);
	return put(put(p + 8, 8192), 65536);
}

static unsigned char *nextcall(struct conn *c, unsigned char *p)
{
	static uint32_t xid = 256;
	xid += 256;
	switch (op[0]) {
	case 'g': return puthandle(head(c, p, xid, NFS, 1), &target);
	case 'l': return putbytes(puthandle(head(c, p, xid, NFS, 3), &parent), leaf, strlen(leaf));
	case 'a': return put(puthandle(head(c, p, xid, NFS, 4), &target), 0x3f);
	case 'w': return walkcall(c, p, &xid);
	}
	p = put(put(put(puthandle(head(c, p, xid, NFS, 6), &target), offset >> 32), offset), size);
	offset = offset + 2 * size > filesize ? 0 : offset + size;
	return p;
}

/* listing takes the entries of a READDIRPLUS reply apart. */
static void listing(struct work *w, const unsigned char *r)
{
	struct work next = *w;
	r += 4 + (get(r) ? 84 : 0);
	memcpy(next.verf, r, 8);
	for (r += 8; get(r);) {
		const unsigned char *name = r + 16;
		uint32_t n = get(r + 12), type = 0;
		struct work found = {0};
		r = name + n + (-n & 3);
		next.cookie = get64(r);
		r += 8;
		if (get(r)) { type = get(r + 4); found.size = get64(r + 24) > 1 << 20 ? 1 << 20 : get64(r + 24); r += 84; }
		r += 4;
		if (get(r)) r = gethandle(r + 4, &found.fh) - 4;
		r += 4;
		if (name[0] == '.' && (n == 1 || (n == 2 && name[1] == '.'))) continue;
		found.plus = type == 2;
		if (type == 2 || (type == 1 && found.size)) enqueue(found);
	}
	if (!get(r + 4)) enqueue(next);
}

static void reply(struct conn *c, const unsigned char *msg)
{
	const unsigned char *r = body(msg);
	errno = 0;
	c->inflight--;
	if (op[0] == 'w' && get(r) == 10008) { /* NFS3ERR_JUKEBOX: ask again */
		c->used[get(msg) & 0xff] = 0;
		enqueue(c->slot[get(msg) & 0xff]);
		return;
	}
	if (get(r)) { fprintf(stderr, "load: %s: status %u\n", op, get(r)); exit(1); }
	calls++;
	if (op[0] == 'w') {
		int s = get(msg) & 0xff;
		c->used[s] = 0;
		if (c->slot[s].plus) { struct work w = c->slot[s]; listing(&w, r + 4); return; }
		bytes += get(r + 4 + 4 + (get(r + 4) ? 84 : 0));
	} else if (op[0] == 'r' || op[0] == 'u') {
		uint32_t n = get(r + 4 + 4 + (get(r + 4) ? 84 : 0));
		if (n != size) die("a short read");
		bytes += n;
	}
}

static void refill(struct conn *c)
{
	while (c->inflight < depth) {
		unsigned char *start = c->out + c->outlen, *end = nextcall(c, start);
		if (!end) break;
		seal(c, start, end);
		c->outlen = end - c->out;
		c->inflight++;
		if (c->udp) sendall(c);
	}
	if (c->outlen) sendall(c);
}

/* takeread takes the head of a reply to READ, and throws the body away. */
static void takeread(struct conn *c)
{
	enum { HEAD = 4 + 24 + 4 + 88 + 12 }; /* mark, reply, status, attributes, count, eof and length */
	ssize_t n;
	if (c->skip) {
		if ((n = recv(c->fd, c->in, c->skip, MSG_TRUNC)) <= 0) die("recv");
		c->skip -= n;
		return;
	}
	if ((n = read(c->fd, c->in + c->inlen, HEAD - c->inlen)) <= 0) die("read");
	c->inlen += n;
	if (c->inlen < HEAD) return;
	reply(c, c->in + 4);
	c->skip = (get(c->in) & 0x7fffffff) + 4 - HEAD;
	c->inlen = 0;
}

static void take(struct conn *c)
{
	size_t at = 0;
	if (op[0] == 'r') { takeread(c); return; }
	ssize_t n = read(c->fd, c->in + c->inlen, BUF - c->inlen);
	if (n <= 0) die("read");
	if (c->udp) { reply(c, c->in); return; }
	c->inlen += n;
	while (c->inlen - at >= 4) {
		size_t want = get(c->in + at) & 0x7fffffff;
		if (c->inlen - at < want + 4) break;
		reply(c, c->in + at + 4);
		at += want + 4;
	}
	memmove(c->in, c->in + at, c->inlen - at);
	c->inlen -= at;
}

int main(int argc, char **argv)
{
	struct pollfd fds[MAXCONN];
	double begin, busy, took;
	int o, udp, live = 1;
	while ((o = getopt(argc, argv, "h:n:m:e:c:q:t:p:")) > 0) switch (o) {
	case 'h': host = optarg; break;
	case 'n': nfsport = atoi(optarg); break;
	case 'm': mountport = atoi(optarg); break;
	case 'e': export = optarg; break;
	case 'c': nconn = atoi(optarg); break;
	case 'q': depth = atoi(optarg); break;
	case 't': seconds = atof(optarg); break;
	case 'p': pid = atoi(optarg); break;
	default: return 2;
	}
	if (optind == argc) return 2;
	op = argv[optind];
	if (optind + 1 < argc) path = argv[optind + 1];
	if (optind + 2 < argc) size = atoi(argv[optind + 2]);
	udp = op[0] == 'u';
	for (int i = 0; i < nconn; i++) openconn(&conns[i], nfsport, udp);
	resolve(&conns[0]);
	if (op[0] == 'w') { struct work w = {.plus = 1, .fh = target}; enqueue(w); }
	begin = now();
	busy = cpu();
	while (live) {
		live = 0;
		for (int i = 0; i < nconn; i++) {
			if (op[0] == 'w' || now() - begin < seconds) refill(&conns[i]);
			live += conns[i].inflight;
			fds[i] = (struct pollfd){.fd = conns[i].inflight ? conns[i].fd : -1, .events = POLLIN};
		}
		if (!live) break;
		if (nconn > 1 && poll(fds, nconn, 10000) <= 0) die("waiting for replies");
		for (int i = 0; i < nconn; i++)
			if (conns[i].inflight && (nconn == 1 || fds[i].revents)) take(&conns[i]);
	}
	took = now() - begin;
	busy = cpu() - busy;
	printf("%s %lu %.3f %.0f %.1f %.3f\n", op, (unsigned long)calls, took, calls / took, bytes / took / 1e6, busy / calls * 1e6);
	return 0;
}
