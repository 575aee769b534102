/* Progress on stderr, and Ctrl-C. On a terminal one line is redrawn in place; elsewhere a line now and then. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "cli.h"

enum { BAR_WIDTH = 24, LINE = 256 };
static const double REDRAW_SECONDS = 0.1, LINE_SECONDS = 10, TENTH_SECONDS = 1;

typedef struct cli_display {
  bool terminal, verbose, quiet, transient;
  char stage[64], unit[24];
  bool active;            /* a stage has begun and not ended */
  bool drawn;             /* the cursor is behind a progress line */
  uint64_t first, done, total;
  double begin, last;     /* seconds: of the stage, of the last output */
  uint64_t last_tenth;
  char detail[96];        /* figures of the last unit, or "" */
} cli_display;

static volatile sig_atomic_t interrupted;

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static int terminal_width(void) {
  struct winsize size;
  return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

const char *cli_clock(double seconds, char text[static CLI_CLOCK_SIZE]) {
  enum { LONGEST = 999 * 3600 + 3599 };
  const long all = !(seconds > 0) ? 0 : seconds < LONGEST ? (long)(seconds + 0.5) : LONGEST;
  if (all >= 3600) snprintf(text, CLI_CLOCK_SIZE, "%ld:%02ld:%02ld", all / 3600, all / 60 % 60, all % 60);
  else snprintf(text, CLI_CLOCK_SIZE, "%ld:%02ld", all / 60, all % 60);
  return text;
}

static void erase(cli_display *display) {
  if (display->drawn) fputs("\r\033[K", stderr);
  display->drawn = false;
}

/* Units per second since the stage began here; 0 when that cannot be said yet. */
static double rate_of(const cli_display *display, double time) {
  const double seconds = time - display->begin;
  return seconds > 0 ? (double)(display->done - display->first) / seconds : 0;
}

static void end_stage(cli_display *display) {
  if (!display->active) return;
  display->active = false;
  erase(display);
  if (display->transient) return;
  const double time = now(), rate = rate_of(display, time);
  fprintf(stderr, "%s: %llu %s in %.1f s", display->stage, (unsigned long long)display->done, display->unit, time - display->begin);
  if (rate > 0) fprintf(stderr, " (%.1f %s/s)", rate, display->unit);
  fputc('\n', stderr);
}

static void draw_bar(cli_display *display, double time) {
  char figures[LINE], clock[CLI_CLOCK_SIZE];
  const double rate = rate_of(display, time);
  int length = snprintf(figures, sizeof figures, " %llu/%llu %s", (unsigned long long)display->done, (unsigned long long)display->total, display->unit);
  if (rate > 0)
    snprintf(figures + length, sizeof figures - (size_t)length, "  %.1f/s  %s left", rate,
             cli_clock((double)(display->total - display->done) / rate, clock));
  length = (int)strlen(figures);
  if (*display->detail) snprintf(figures + length, sizeof figures - (size_t)length, "  %s", display->detail);
  const int room = terminal_width() - 1 - (int)strlen(display->stage) - (int)strlen(figures) - 3;
  const int bar = room < BAR_WIDTH ? room : BAR_WIDTH;
  erase(display);
  fputs("\r", stderr);
  if (bar >= 6) {
    const int filled = (int)((double)bar * (double)display->done / (double)display->total);
    fprintf(stderr, "%s [", display->stage);
    for (int i = 0; i < bar; i++) fputc(i < filled ? '#' : '.', stderr);
    fprintf(stderr, "]%s", figures);
  } else {
    char line[LINE + 80];
    snprintf(line, sizeof line, "%s%s", display->stage, figures);
    fprintf(stderr, "%.*s", terminal_width() - 1, line);
  }
  fflush(stderr);
  display->drawn = true;
}

static void print_line(const cli_display *display, double time) {
  char clock[CLI_CLOCK_SIZE];
  const double rate = rate_of(display, time);
  fprintf(stderr, "%s: %llu of %llu %s (%llu %%)", display->stage, (unsigned long long)display->done, (unsigned long long)display->total,
          display->unit, (unsigned long long)(100 * display->done / display->total));
  if (rate > 0) fprintf(stderr, ", %.1f %s/s, %s left", rate, display->unit, cli_clock((double)(display->total - display->done) / rate, clock));
  if (*display->detail) fprintf(stderr, ", %s", display->detail);
  fputc('\n', stderr);
}

static void show_progress(void *user, const bnd_progress *progress) {
  cli_display *display = ((cli_run *)user)->display;
  if (display->quiet) return;
  const double time = now();
  if (display->active && strncmp(display->stage, progress->stage, sizeof display->stage - 1) != 0) end_stage(display);
  if (!display->active) {
    if (strncmp(display->stage, progress->stage, sizeof display->stage - 1) == 0 && progress->done == display->done) return; /* the end, told twice */
    snprintf(display->stage, sizeof display->stage, "%s", progress->stage);
    snprintf(display->unit, sizeof display->unit, "%s", progress->unit ? progress->unit : "steps");
    display->active = true;
    display->begin = display->last = time;
    display->first = progress->done;
    display->last_tenth = 0;
  }
  display->done = progress->done;
  display->total = progress->total;
  snprintf(display->detail, sizeof display->detail, "%s", progress->detail ? progress->detail : "");
  if (progress->total == 0) return;
  if (progress->done >= progress->total) {
    end_stage(display);
    return;
  }
  const uint64_t tenth = 10 * progress->done / progress->total;
  const double waited = time - display->last;
  if (display->terminal) {
    if (display->drawn && waited < REDRAW_SECONDS) return;
    draw_bar(display, time);
  } else {
    if (waited < LINE_SECONDS && (tenth == display->last_tenth || waited < TENTH_SECONDS)) return;
    print_line(display, time);
  }
  display->last = time;
  display->last_tenth = tenth;
}

void cli_live_line(cli_run *run, const char *text) {
  cli_display *display = run->display;
  const double time = now(), pause = display->terminal ? REDRAW_SECONDS : LINE_SECONDS;
  end_stage(display);
  if (display->quiet || (time - display->last < pause && (display->drawn || !display->terminal))) return;
  erase(display);
  if (display->terminal) fprintf(stderr, "\r%.*s", terminal_width() - 1, text);
  else fprintf(stderr, "%s\n", text);
  fflush(stderr);
  display->drawn = display->terminal;
  display->last = time;
}

void cli_lasting_line(cli_run *run, const char *text) {
  cli_display *display = run->display;
  end_stage(display);
  if (display->quiet) return;
  erase(display);
  fprintf(stderr, "%s\n", text);
  display->last = now();
}

static void show_log(void *user, bnd_log_level level, const char *message) {
  cli_display *display = ((cli_run *)user)->display;
  if (level > BND_LOG_WARNING && display->quiet) return;
  if (level > BND_LOG_INFO && !display->verbose) return;
  erase(display);
  if (level == BND_LOG_WARNING) cli_message("warning: %s", message);
  else {
    cli_write(stderr, message, false);
    fputc('\n', stderr);
  }
}

static bool is_interrupted(void *user) {
  (void)user;
  return interrupted != 0;
}

/* Called once: the handler uninstalls itself, so a second signal ends the program at once. */
static void on_signal(int number) {
  static const char text[] = "\nstopping; once more stops at once\n";
  interrupted = number;
  if (write(STDERR_FILENO, text, sizeof text - 1) < 0) interrupted = number; /* nothing to do about it */
}

bnd_context *cli_run_begin(cli_run *run) {
  cli_display *display = cli_allocate(1, sizeof *display);
  const char *term = getenv("TERM");
  display->terminal = isatty(STDERR_FILENO) && !(term && strcmp(term, "dumb") == 0);
  display->verbose = run->verbose;
  display->quiet = run->quiet;
  display->transient = run->transient;
  display->last = now();
  run->display = display;
  run->context = (bnd_context){.threads = run->threads, .seed = run->seed, .user = run,
                               .progress = show_progress, .log = show_log, .cancelled = is_interrupted};
  struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND | SA_RESTART};
  sigaction(SIGINT, &action, NULL);
  sigaction(SIGTERM, &action, NULL);
  return &run->context;
}

void cli_run_end(cli_run *run) {
  erase(run->display);
  free(run->display);
  run->display = NULL;
}
