/* rtload: a load client for realtime servers, cheap enough to share a machine of two cores with the server.
 *
 *   rtload echo HOST PORT PATH  conns= size= window= cpu= secs= warm=
 *   rtload room HOST PORT PATH  conns= size= window= cpu= secs= warm= talkers= [rate=] [streams= streams_path=] [stalled= settle=]
 *   rtload idle HOST PORT PATH  conns=
 *   rtload across HOST PORT PATH  conns= size= window= cpu= secs= warm= talkers= rate= second= [also=] [redis=] [socketio=1]
 *
 * Each takes pid=, the server's process, whose descendants are counted with it; and patience=, after how many seconds in
 * which nothing comes it gives up on what is missing, by default 5.
 *
 * echo  WebSocket clients, each with `window` texts on their way; each text must come back.
 * room  WebSocket clients in one room, to which the first text of a client is its name; the first `talkers` of them talk
 *       in turn, and each text must reach everybody. `window` texts are on their way: so many times the number of clients
 *       is what has still to arrive. With rate= they are sent at so many a second instead, whatever became of others.
 *       `streams` more clients read the same room as server-sent events. With stalled= it measures three times: without,
 *       with, and again without so many clients that never read; first the room talks for `settle` seconds.
 * idle  opens WebSockets to an echo, at most 50 handshakes at a time, has each answered once, and lets them be.
 * across  half of the clients are at PORT, and half at the port `second`, which is another process of the same server (pid
 *       `also`) or the same one. The first `talkers` of those at PORT talk, and each text must reach everybody at both. It
 *       measures twice: first with `rate` texts a second, then with `window` texts on their way. With redis=, the process
 *       that the servers are joined by, it says how long that has worked, too. Nobody says a name; with socketio=1
 *       the clients speak Socket.IO, and a text is an event `m`.
 *
 * It measures, after `warm` seconds, until the server has used `cpu` seconds of processor time, at most `secs` seconds.
 * What was on its way then must still arrive, or it fails. One line of JSON comes out. Exit 0 when everything that was
 * sent arrived exactly once, 1 when not, or when the server closed a connection; 2 when it could not begin. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { HANDSHAKES = 50, BLOCK = 500, STAMP = 24, FLIGHT = 1 << 16, HEAD = 1024, FILL = 256, FILL_SIZE = 1024 };
static const uint64_t SECOND = 1000000000ull, SILENCE = SECOND * 2 / 5;

typedef struct {
  int fd, id, open, stream, never_reads, joined;
  char head[HEAD];          /* the answer to the handshake */
  int nhead;
  unsigned char header[14]; /* of a frame */
  int nheader, opcode;
  uint64_t left;            /* of the frame's payload */
  unsigned char control[125];
  int ncontrol;
  char stamp[STAMP + 1];    /* of a text, while it is incomplete */
  int nstamp;               /* 0: none has begun */
  char *out;                /* what the socket would not take yet */
  size_t nout, outsize;
  int waits;                /* until it takes more */
  uint64_t bytes, texts;    /* received */
} conn;

/* A text on its way. */
typedef struct { uint64_t seq, at; int reached; } text;

typedef struct { uint64_t count, cells[64 * 128]; } histogram;

typedef struct { double secs, cpu, own, redis, there; uint64_t deliveries; histogram each, other, all; } phase;

static const char *host, *path;
static int port, epoll, size, window, talkers, everybody, echo;
static double rate, most_silence;
static int socketio, redis, elsewhere = 1 << 30; /* the first client that is at another process */
static conn *conns;
static int nconns, opening;
static text flight[FLIGHT];
static uint64_t sent, completed, deliveries, received_at, received;
static phase *now_measured;
static uint64_t from, until; /* texts that were sent between these count for the latency */
static char buffer[1 << 18];
static int pids[64], npids, nhere; /* the first nhere are those at PORT */

static void fail(int code, const char *format, ...) {
  va_list a;
  va_start(a, format);
  fputs("rtload: ", stderr);
  vfprintf(stderr, format, a);
  fputc('\n', stderr);
  exit(code);
}
static uint64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * SECOND + t.tv_nsec;
}

/* The server's processes */

static void find_processes(int pid) {
  if (npids == sizeof pids / sizeof *pids) fail(2, "the server has too many processes");
  pids[npids++] = pid;
  char name[64];
  int child;
  snprintf(name, sizeof name, "/proc/%d/task/%d/children", pid, pid);
  FILE *f = fopen(name, "r");
  if (!f) return;
  while (fscanf(f, "%d", &child) == 1) find_processes(child);
  fclose(f);
}
static double cpu_of(int pid) {
  clockid_t clock;
  struct timespec t;
  if (clock_getcpuclockid(pid, &clock) || clock_gettime(clock, &t)) fail(1, "the server's process %d has ended", pid);
  return t.tv_sec + t.tv_nsec / 1e9;
}
static double cpu_from(int first) {
  double sum = 0;
  for (int i = first; i < npids; i++) sum += cpu_of(pids[i]);
  return sum;
}
static double server_cpu(void) { return cpu_from(0); }
static double server_kib(void) {
  double sum = 0;
  for (int i = 0; i < npids; i++) {
    char name[64];
    long all, resident = 0;
    snprintf(name, sizeof name, "/proc/%d/statm", pids[i]);
    FILE *f = fopen(name, "r");
    if (!f || fscanf(f, "%ld %ld", &all, &resident) != 2) fail(1, "the server's process %d has ended", pids[i]);
    fclose(f);
    sum += resident * (sysconf(_SC_PAGESIZE) / 1024.0);
  }
  return sum;
}
/* What the kernel holds for all TCP sockets of this machine, both ends of ours among them. */
static double kernel_kib(void) {
  char line[256];
  long pages = 0;
  FILE *f = fopen("/proc/net/sockstat", "r");
  while (f && fgets(line, sizeof line, f)) sscanf(line, "TCP: inuse %*d orphan %*d tw %*d alloc %*d mem %ld", &pages);
  if (f) fclose(f);
  return pages * (sysconf(_SC_PAGESIZE) / 1024.0);
}
static double own_cpu(void) {
  struct rusage r;
  getrusage(RUSAGE_SELF, &r);
  return r.ru_utime.tv_sec + r.ru_stime.tv_sec + (r.ru_utime.tv_usec + r.ru_stime.tv_usec) / 1e6;
}

/* Latencies, in cells that are less than one per cent wide */

static void add(histogram *h, uint64_t ns) {
  int e = ns < 128 ? 0 : 63 - __builtin_clzll(ns);
  h->cells[ns < 128 ? ns : (uint64_t)(e - 6) * 128 + (ns >> (e - 7) & 127)]++;
  h->count++;
}
static double quantile(const histogram *h, double q) {
  uint64_t seen = 0, wanted = q * h->count;
  if (wanted >= h->count) wanted = h->count ? h->count - 1 : 0;
  for (int i = 0; i < 64 * 128; i++)
    if ((seen += h->cells[i]) > wanted) return i < 128 ? i / 1e6 : (double)((128ull + i % 128) << (i / 128 - 1)) / 1e6;
  return 0;
}

/* Out */

static void flush(conn *c) {
  size_t n = 0;
  while (n < c->nout) {
    ssize_t k = send(c->fd, c->out + n, c->nout - n, MSG_NOSIGNAL);
    if (k <= 0) break;
    n += k;
  }
  memmove(c->out, c->out + n, c->nout -= n);
  if (c->waits == (c->nout > 0)) return;
  c->waits = !c->waits;
  struct epoll_event e = {.events = EPOLLIN | (c->waits ? EPOLLOUT : 0), .data.ptr = c};
  epoll_ctl(epoll, EPOLL_CTL_MOD, c->fd, &e);
}
static void queue(conn *c, int opcode, const char *p, size_t n) {
  static const unsigned char mask[4] = {0x5a, 0x11, 0xc3, 0x7e};
  if (c->nout + n + 14 > c->outsize) c->out = realloc(c->out, c->outsize = 2 * (c->nout + n + 14));
  char *o = c->out + c->nout;
  *o++ = 0x80 | opcode;
  if (n < 126) *o++ = 0x80 | n;
  else { *o++ = 0x80 | 126; *o++ = n >> 8; *o++ = n; } /* none of ours is larger */
  memcpy(o, mask, 4);
  o += 4;
  for (size_t i = 0; i < n; i++) o[i] = p[i] ^ mask[i & 3];
  c->nout = o + n - c->out;
}
/* A text holds one `@`, when it was due, and its number; nothing else that anybody says has an `@`. */
static void say(conn *c, uint64_t at) {
  static char t[1 << 16];
  text *f = &flight[sent % FLIGHT];
  if (sent >= FLIGHT && f->reached < everybody) fail(1, "%d texts are on their way", FLIGHT);
  *f = (text){sent, at, 0};
  int before = socketio ? sprintf(t, "42[\"m\",\"") : 0, n = size > 1 + STAMP ? size : 1 + STAMP;
  sprintf(t + before, "@%016llx%08x", (unsigned long long)at, (unsigned)sent++);
  memset(t + before + 1 + STAMP, 'x', n - 1 - STAMP);
  queue(c, 1, t, before + n + (socketio ? sprintf(t + before + n, "\"]") : 0));
}

/* In */

static uint64_t hex(const char *p, int n) {
  uint64_t v = 0;
  for (int i = 0; i < n; i++) v = v << 4 | (p[i] <= '9' ? p[i] - '0' : p[i] - 'a' + 10);
  return v;
}
static void arrived(conn *c) {
  uint64_t at = hex(c->stamp, 16), seq = hex(c->stamp + 16, 8);
  text *f = &flight[seq % FLIGHT];
  if (f->seq != seq || f->at != at || f->reached >= everybody) fail(1, "text %llu came to client %d once too often", (unsigned long long)seq, c->id);
  c->texts++;
  deliveries++;
  if (now_measured && at >= from && at <= until) add(c->id < elsewhere ? &now_measured->each : &now_measured->other, received_at - at);
  if (++f->reached == everybody) {
    completed++;
    if (now_measured && at >= from && at <= until) add(&now_measured->all, received_at - at);
  }
  if (echo && now_measured) say(c, received_at); /* goes on, until nothing is measured any more */
}
static void scan(conn *c, const char *p, size_t n) {
  const char *end = p + n;
  while (p < end) {
    if (!c->nstamp) {
      if (!(p = memchr(p, '@', end - p))) return;
      p++;
      c->nstamp = 1;
    }
    while (p < end && c->nstamp <= STAMP) c->stamp[c->nstamp++ - 1] = *p++;
    if (c->nstamp > STAMP) { c->nstamp = 0; arrived(c); }
  }
}
/* What Socket.IO says of its own: it opens, takes us in, and pings. */
static void speak(conn *c) {
  if (c->control[0] == '0') { queue(c, 1, "40", 2); flush(c); }
  else if (c->control[0] == '2') { queue(c, 1, "3", 1); flush(c); }
  else if (c->control[0] == '4' && c->control[1] == '0') c->joined = 1;
  else if (c->control[0] != '4' || c->control[1] != '2') fail(1, "client %d was told %.2s", c->id, c->control);
}
static void frame_ends(conn *c) {
  if (socketio && c->opcode == 1) speak(c);
  if (c->opcode == 9) { queue(c, 10, (char *)c->control, c->ncontrol); flush(c); }
  if (c->opcode == 8)
    fail(1, "the server closed client %d: %d %.*s", c->id, c->ncontrol > 1 ? c->control[0] << 8 | c->control[1] : 0,
         c->ncontrol > 2 ? c->ncontrol - 2 : 0, c->control + 2);
  if (c->nstamp) fail(1, "a text that came to client %d is cut off", c->id);
}
static void frames(conn *c, const char *p, size_t n) {
  while (n) {
    if (c->left) {
      size_t k = n < c->left ? n : c->left;
      if (socketio && c->opcode == 1) for (size_t i = 0; i < k && c->ncontrol < 2; i++) c->control[c->ncontrol++] = p[i];
      if (c->opcode < 8) scan(c, p, k);
      else { memcpy(c->control + c->ncontrol, p, k); c->ncontrol += k; }
      p += k;
      n -= k;
      if (!(c->left -= k)) frame_ends(c);
      continue;
    }
    c->header[c->nheader++] = *p++;
    n--;
    if (c->nheader < 2) continue;
    int length = c->header[1], need = length < 126 ? 2 : length == 126 ? 4 : 10;
    if (c->nheader < need) continue;
    c->opcode = c->header[0] & 15;
    if (c->header[0] & 0x70 || length > 127 || (c->opcode > 2 && c->opcode < 8) || (c->opcode >= 8 && length > 125))
      fail(1, "what came to client %d is no frame", c->id);
    c->left = length < 126 ? length : 0;
    for (int i = 2; i < need; i++) c->left = c->left << 8 | c->header[i];
    c->nheader = c->ncontrol = 0;
    if (!c->left) frame_ends(c);
  }
}
static void handshake(conn *c, const char *p, size_t n) {
  size_t k = n < (size_t)(HEAD - 1 - c->nhead) ? n : (size_t)(HEAD - 1 - c->nhead);
  memcpy(c->head + c->nhead, p, k);
  c->head[c->nhead += k] = 0;
  char *end = strstr(c->head, "\r\n\r\n");
  if (!end) { if (k < n) fail(1, "the answer to a handshake is too long"); return; }
  if (strncmp(c->head, c->stream ? "HTTP/1.1 200" : "HTTP/1.1 101", 12)) fail(1, "a handshake was refused: %.*s", (int)strcspn(c->head, "\r"), c->head);
  size_t over = c->nhead - (end + 4 - c->head); /* what came behind it, also what did not fit */
  p += k - over;
  n -= k - over;
  c->nhead = 0;
  c->open = 1;
  opening--;
  if (c->never_reads) epoll_ctl(epoll, EPOLL_CTL_DEL, c->fd, 0);
  else if (c->stream) scan(c, p, n);
  else frames(c, p, n);
}
static int pump(double ms) {
  struct epoll_event events[512];
  struct timespec wait = {.tv_nsec = ms * 1e6};
  int n = epoll_pwait2(epoll, events, 512, &wait, 0);
  for (int i = 0; i < n; i++) {
    conn *c = events[i].data.ptr;
    if (events[i].events & EPOLLOUT) flush(c);
    if (!(events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))) continue;
    ssize_t k = recv(c->fd, buffer, sizeof buffer, 0);
    if (k < 0 && errno == EAGAIN) continue;
    if (k <= 0) fail(1, "the server cut client %d%s", c->id, c->open ? "" : " in its handshake");
    received_at = now();
    received += k;
    if (!c->open) handshake(c, buffer, k);
    else if (c->bytes += k, c->stream) scan(c, buffer, k);
    else frames(c, buffer, k);
    if (echo && c->nout) flush(c);
  }
  return n;
}
static void patience(const char *what) {
  if (now() - received_at < most_silence * SECOND) return;
  for (uint64_t i = sent > FLIGHT ? sent - FLIGHT : 0; i < sent; i++) {
    text *f = &flight[i % FLIGHT];
    if (f->reached < everybody)
      fail(1, "%s: nothing has come for %g s, and text %llu has reached %d of %d clients", what, most_silence, (unsigned long long)i, f->reached, everybody);
  }
  fail(1, "%s: nothing has come for %g s", what, most_silence);
}
static void wait_for_silence(void) {
  uint64_t seen = received, since = now();
  while (now() - since < SILENCE) {
    pump(20);
    if (received != seen) { seen = received; since = now(); }
  }
}

/* Connections */

static void open_conn(conn *c, int id, const char *where, int stream, int never_reads) {
  *c = (conn){.id = id, .stream = stream, .never_reads = never_reads, .fd = socket(AF_INET, SOCK_STREAM, 0)};
  if (c->fd < 0) fail(2, "socket: %s", strerror(errno));
  int one = 1, small = 4096, ethernet = 1448;
  setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  if (never_reads) { /* as somebody on a real network: on loopback the kernel alone would take megabytes for it */
    setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    setsockopt(c->fd, IPPROTO_TCP, TCP_MAXSEG, &ethernet, sizeof ethernet);
  }
  /* from several addresses, because one has 28,000 ports */
  struct sockaddr_in from = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0x7f000002u + id / 20000)};
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
  setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
  if (inet_pton(AF_INET, host, &to.sin_addr) != 1) fail(2, "%s is no IPv4 address", host);
  if (ntohl(to.sin_addr.s_addr) >> 24 != 127) fail(2, "%s is not on this machine", host);
  if (bind(c->fd, (void *)&from, sizeof from) || connect(c->fd, (void *)&to, sizeof to)) fail(2, "connect: %s", strerror(errno));
  char request[512];
  int n = snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: %s:%d\r\n%s\r\n", where, host, port,
                   stream ? "Accept: text/event-stream\r\n"
                          : "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n");
  if (send(c->fd, request, n, MSG_NOSIGNAL) != n) fail(1, "the server cut client %d", id);
  fcntl(c->fd, F_SETFL, O_NONBLOCK);
  struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
  epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &e);
  opening++;
}
static void open_conns(int first, int n, const char *where, int stream, int never_reads) {
  received_at = now();
  for (int i = first; i < first + n; i++) {
    open_conn(&conns[i], i, where, stream, never_reads);
    while (opening >= HANDSHAKES) { pump(20); patience("handshakes"); }
  }
  while (opening) { pump(20); patience("handshakes"); }
}
/* Some at a time, so that none waits for its name to be said; each is in the room when it hears of itself. */
static void join(int first, int n, int never_reads) {
  for (int at = first; at < first + n; at += BLOCK) {
    int end = at + BLOCK < first + n ? at + BLOCK : first + n;
    open_conns(at, end - at, path, 0, never_reads);
    for (int i = at; i < end; i++) {
      char name[16];
      queue(&conns[i], 1, name, sprintf(name, "u%d", i));
      flush(&conns[i]);
    }
    for (int i = at; i < end && !never_reads; i++)
      while (!conns[i].bytes) { pump(20); patience("joining"); }
  }
  wait_for_silence();
}

/* Half of them there; all at once, because none is told of another. */
static void join_both(int n, int second) {
  int here = port;
  open_conns(0, elsewhere = n / 2, path, 0, 0);
  port = second;
  open_conns(n / 2, n - n / 2, path, 0, 0);
  port = here;
  for (int i = 0; i < n && socketio; i++)
    while (!conns[i].joined) { pump(20); patience("joining"); }
  wait_for_silence();
}

/* Measuring */

static double until_due(uint64_t began, uint64_t first) { /* in milliseconds */
  double ms = (began + (sent - first) * (SECOND / rate) - now()) / 1e6;
  return ms < 0 ? 0 : ms < 20 ? ms : 20;
}
static void talk(uint64_t began, uint64_t first) {
  static int next;
  if (echo) return; /* every answer brings the next */
  uint64_t due;
  while (rate ? (due = began + (sent - first) * (SECOND / rate)) <= now() : sent * everybody < deliveries + (uint64_t)window * everybody) {
    conn *c = &conns[next++ % talkers];
    say(c, rate ? due : now());
    if (rate) flush(c);
  }
  for (int i = 0; i < talkers; i++) if (conns[i].nout) flush(&conns[i]);
}
static void drain(void) {
  while (completed < sent) { pump(20); patience("draining"); }
  for (int i = 0; i < nconns && !echo; i++)
    if (conns[i].open && !conns[i].never_reads && conns[i].texts != sent)
      fail(1, "client %d has %llu of %llu texts", i, (unsigned long long)conns[i].texts, (unsigned long long)sent);
}
static phase *measure(double cpu, double secs, double warm) {
  phase *p = calloc(1, sizeof *p);
  uint64_t began = received_at = now(), first = sent, looked = 0;
  now_measured = p;
  from = UINT64_MAX;
  until = 0;
  for (int i = 0; echo && i < nconns; i++) {
    for (int k = 0; k < window; k++) say(&conns[i], now());
    flush(&conns[i]);
  }
  while (now() - began < warm * SECOND) { talk(began, first); pump(rate ? until_due(began, first) : 20); patience("warming up"); }
  double cpu0 = server_cpu(), own0 = own_cpu(), redis0 = redis ? cpu_of(redis) : 0, there0 = cpu_from(nhere);
  uint64_t d0 = deliveries;
  from = now();
  until = UINT64_MAX;
  for (uint64_t t = from; t - from < secs * SECOND; t = now()) {
    if (t - looked > SECOND / 500) { if (server_cpu() - cpu0 >= cpu) break; looked = t; }
    talk(began, first);
    pump(rate ? until_due(began, first) : 20);
    patience("measuring");
  }
  until = now();
  p->secs = (until - from) / 1e9;
  p->cpu = server_cpu() - cpu0;
  p->own = own_cpu() - own0;
  p->redis = redis ? cpu_of(redis) - redis0 : 0;
  p->there = cpu_from(nhere) - there0;
  p->deliveries = deliveries - d0;
  if (echo) now_measured = 0; /* the texts that are out come back, and bring no others */
  drain();
  now_measured = 0;
  return p;
}
static void print(const char *name, const phase *p) {
  printf("\"%s\": {\"secs\": %.3f, \"cpu\": %.4f, \"client\": %.3f, \"deliveries\": %llu, \"per_s\": %.1f, \"per_cpu_s\": %.1f", name, p->secs, p->cpu,
         p->own / p->secs, (unsigned long long)p->deliveries, p->deliveries / p->secs, p->cpu > 0 ? p->deliveries / p->cpu : 0);
  printf(", \"p50_ms\": %.4f, \"p99_ms\": %.4f, \"p999_ms\": %.4f, \"max_ms\": %.4f", quantile(&p->each, .5), quantile(&p->each, .99),
         quantile(&p->each, .999), quantile(&p->each, 1));
  if (p->other.count) printf(", \"other_p50_ms\": %.4f, \"other_p99_ms\": %.4f", quantile(&p->other, .5), quantile(&p->other, .99));
  printf(", \"here\": %.4f, \"there\": %.4f, \"redis\": %.4f, \"texts_per_s\": %.1f", (p->cpu - p->there) / p->secs, p->there / p->secs,
         p->redis / p->secs, p->deliveries / p->secs / everybody);
  printf(", \"texts\": %llu, \"all_p50_ms\": %.4f, \"all_p99_ms\": %.4f, \"all_max_ms\": %.4f}", (unsigned long long)p->all.count, quantile(&p->all, .5),
         quantile(&p->all, .99), quantile(&p->all, 1));
}

/* Workloads */

static void with_stalled(int n, double cpu, double secs, double warm, double settle) {
  int first = nconns - n, cut = 0;
  free(measure(1e9, settle, 0)); /* until the server keeps as much of the past as it ever will */
  print("before", measure(cpu, secs, warm));
  wait_for_silence();
  double resident = server_kib(), kernel = kernel_kib();
  join(first, n, 1);
  int size_before = size;
  size = FILL_SIZE;
  for (uint64_t end = sent + FILL; completed < end;) { /* until their sockets are full */
    if (sent < end) talk(now(), sent);
    pump(20);
    patience("with clients that never read");
  }
  drain();
  size = size_before;
  printf(", ");
  print("during", measure(cpu, secs, warm));
  wait_for_silence();
  resident = server_kib() - resident;
  kernel = kernel_kib() - kernel;
  for (int i = first; i < nconns; i++) {
    struct tcp_info info;
    socklen_t length = sizeof info;
    getsockopt(conns[i].fd, IPPROTO_TCP, TCP_INFO, &info, &length);
    cut += info.tcpi_state != TCP_ESTABLISHED;
    close(conns[i].fd);
    conns[i].open = 0;
  }
  wait_for_silence();
  printf(", ");
  print("after", measure(cpu, secs, warm));
  printf(", \"resident_kib_per_stalled\": %.1f, \"kernel_kib_per_stalled\": %.1f, \"cut\": %d", resident / n, kernel / n, cut);
}
static void answer_each(int first, int n) {
  for (int i = first; i < first + n; i++) { say(&conns[i], now()); flush(&conns[i]); }
  received_at = now();
  while (completed < sent) { pump(20); patience("answers"); }
  wait_for_silence();
}
static void idle(int n) {
  int few = n / 10 < 100 ? n / 10 : 100; /* what the first few cost is not theirs alone */
  open_conns(0, few, path, 0, 0);
  answer_each(0, few);
  double kib = server_kib(), cpu = server_cpu();
  uint64_t began = now();
  open_conns(few, n - few, path, 0, 0);
  double took = (now() - began) / 1e9;
  wait_for_silence();
  cpu = server_cpu() - cpu;
  answer_each(few, n - few);
  wait_for_silence();
  printf("\"secs\": %.3f, \"cpu\": %.4f, \"per_s\": %.1f, \"per_cpu_s\": %.1f, \"kib_per_client\": %.3f", took, cpu, (n - few) / took, (n - few) / cpu,
         (server_kib() - kib) / (n - few));
}

static void across(double cpu, double secs, double warm) {
  print("steady", measure(1e9, secs, warm));
  printf(", ");
  rate = 0;
  print("during", measure(cpu, secs, warm));
}

static const char *option(char **argv, const char *name, const char *otherwise) {
  size_t n = strlen(name);
  for (; *argv; argv++) if (!strncmp(*argv, name, n) && (*argv)[n] == '=') return *argv + n + 1;
  return otherwise;
}
int main(int argc, char **argv) {
  if (argc < 5) fail(2, "usage: rtload echo|room|idle|across HOST PORT PATH name=value...");
  const char *mode = argv[1];
  host = argv[2];
  port = atoi(argv[3]);
  path = argv[4];
  argv += 5;
  int n = atoi(option(argv, "conns", "100")), streams = atoi(option(argv, "streams", "0")), stalled = atoi(option(argv, "stalled", "0"));
  size = atoi(option(argv, "size", "128"));
  window = atoi(option(argv, "window", "1"));
  talkers = atoi(option(argv, "talkers", "1"));
  rate = atof(option(argv, "rate", "0"));
  most_silence = atof(option(argv, "patience", "5"));
  double cpu = atof(option(argv, "cpu", "2")), secs = atof(option(argv, "secs", "10")), warm = atof(option(argv, "warm", "0"));
  find_processes(atoi(option(argv, "pid", "0")));
  nhere = npids;
  int also = atoi(option(argv, "also", "0"));
  if (also) find_processes(also);
  redis = atoi(option(argv, "redis", "0"));
  socketio = atoi(option(argv, "socketio", "0"));
  nconns = n + streams + stalled;
  if (n < 1 || streams < 0 || stalled < 0 || talkers > n || size > 60000 || window < 1) fail(2, "these numbers make no sense");
  struct rlimit limit = {1 << 20, 1 << 20};
  if (setrlimit(RLIMIT_NOFILE, &limit)) { /* not as root: as many as one may */
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
  }
  if (limit.rlim_cur < (rlim_t)nconns + 16) fail(2, "%d connections, and `ulimit -Hn` allows %ld files", nconns, (long)limit.rlim_cur);
  conns = calloc(nconns, sizeof *conns);
  epoll = epoll_create1(0);
  printf("{");
  if (!strcmp(mode, "idle")) {
    everybody = 1;
    idle(n);
  } else if (!strcmp(mode, "echo")) {
    everybody = echo = 1;
    open_conns(0, n, path, 0, 0);
    print("during", measure(cpu, secs, warm));
  } else if (!strcmp(mode, "room")) {
    everybody = n + streams;
    open_conns(n, streams, option(argv, "streams_path", path), 1, 0);
    join(0, n, 0);
    if (stalled) with_stalled(stalled, cpu, secs, warm, atof(option(argv, "settle", "0")));
    else print("during", measure(cpu, secs, warm));
  } else if (!strcmp(mode, "across")) {
    everybody = n;
    if (n < 2 || talkers > n / 2 || rate <= 0) fail(2, "these numbers make no sense");
    join_both(n, atoi(option(argv, "second", "0")));
    across(cpu, secs, warm);
  } else fail(2, "%s is no workload", mode);
  printf(", \"rss_mib\": %.1f, \"clients\": %d}\n", server_kib() / 1024, nconns);
  return 0;
}
