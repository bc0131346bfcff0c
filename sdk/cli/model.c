/* model.c - the verb model: inspect, quantize, bench.
 *
 * Progress goes to standard error: a bar that is redrawn where that is a terminal, a line for each step where it is not, nothing with --json.
 * Ctrl-C ends the work at the next step, and the library removes what was not finished.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "sdk/cli/cli.h"

#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "local-engine/tools/model_tools.h"

/* ---- interruption and progress ---------------------------------------------------------------------------- */

static volatile sig_atomic_t was_interrupted;

static void interrupt(int number)
{
    (void)number;
    was_interrupted = 1;
}

/* A second one ends the program as usual. */
static void catch_interrupts(void)
{
    struct sigaction action;

    memset(&action, 0, sizeof action);
    action.sa_handler = interrupt;
    action.sa_flags = (int)SA_RESETHAND;
    (void)sigemptyset(&action.sa_mask);
    (void)sigaction(SIGINT, &action, NULL);
    (void)sigaction(SIGTERM, &action, NULL);
}

static double seconds_now(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

typedef struct meter {
    const cli *c;
    bool on_terminal, is_drawn;
    char stage[32];          /* the one at work */
    double begun, shown;     /* when the stage began, when it was shown last */
    uint32_t n_shown;        /* tensors that had their line */
    unsigned tenths_shown;   /* of stages without tensors */
} meter;

enum { BAR = 24 };

static void draw_bar(const sluice_tool_progress *p, double share, const char *speed)
{
    char bar[BAR + 1];
    const int full = (int)(share * BAR);

    for (int i = 0; i < BAR; i++)
        bar[i] = i < full ? '#' : '.';
    bar[BAR] = '\0';
    fprintf(stderr, "\r\033[K%s [%s] %3.0f %% %s ", p->stage, bar, 100 * share, speed);
    if (p->item[0] != '\0') {
        cli_print_text(stderr, p->item, strlen(p->item) < 40 ? strlen(p->item) : 40);
        fprintf(stderr, "  %s -> %s", p->from, p->to);
    }
    fflush(stderr);
}

/* Without a terminal: one line for each tensor, and one for each tenth of what has none. */
static void write_line(meter *m, const sluice_tool_progress *p, double share, const char *speed)
{
    if (p->n_items > 0) {
        if (p->n_done + 1 <= m->n_shown)
            return;
        m->n_shown = p->n_done + 1;
        fprintf(stderr, "[%4u/%u] ", p->n_done + 1, p->n_items);
        cli_print_text(stderr, p->item, strlen(p->item));
        fprintf(stderr, "  %s -> %s  %.0f %%  %s\n", p->from, p->to, 100 * share, speed);
    } else if ((unsigned)(10 * share) >= m->tenths_shown) {
        m->tenths_shown = (unsigned)(10 * share) + 1;
        fprintf(stderr, "%s  %.0f %%  %s\n", p->stage, 100 * share, speed);
    }
}

static bool on_progress(const sluice_tool_progress *p, void *user)
{
    meter *m = user;
    const double now = seconds_now(), share = p->total > 0 ? (double)p->done / (double)p->total : 0;
    char speed[40] = "";

    if (was_interrupted)
        return false;
    if (m->c->json)
        return true;
    if (strcmp(m->stage, p->stage) != 0) {
        (void)snprintf(m->stage, sizeof m->stage, "%s", p->stage);
        m->begun = now;
        m->tenths_shown = 0;
    }
    if (now > m->begun && p->n_items > 0)
        (void)snprintf(speed, sizeof speed, "%.0f MB/s", (double)p->done / 1e6 / (now - m->begun));
    else if (now > m->begun && strcmp(p->stage, "calibrate") == 0)
        (void)snprintf(speed, sizeof speed, "%.0f tokens/s", (double)p->done / (now - m->begun));
    if (!m->on_terminal) {
        write_line(m, p, share, speed);
    } else if (now - m->shown > 0.05 || p->done == p->total) {
        m->shown = now;
        m->is_drawn = true;
        draw_bar(p, share, speed);
    }
    return true;
}

static meter start_meter(const cli *c)
{
    meter m;

    memset(&m, 0, sizeof m);
    m.c = c;
    m.on_terminal = isatty(STDERR_FILENO) == 1;
    catch_interrupts();
    return m;
}

static void end_meter(const meter *m)
{
    if (m->is_drawn)
        fputs("\r\033[K", stderr);
}

/* What is wrong with the model file is the model's code, whatever the status; another file (the output, a text, a matrix) is no model. */
static int code_of(const sluice_error *err, const char *model)
{
    const bool is_of_model = cli_error_is_at(err, model);

    switch (err->status) {
    case SLUICE_ERR_NOT_FOUND:
    case SLUICE_ERR_IO:
    case SLUICE_ERR_FORMAT:
    case SLUICE_ERR_UNSUPPORTED:
    case SLUICE_ERR_INTEGRITY: return is_of_model ? EXIT_MODEL : EXIT_FAILED;
    default: return cli_exit_code(err->status);
    }
}

/* ---- inspect ------------------------------------------------------------------------------------------------ */

static int inspect_json(const cli *c, const char *path)
{
    sluice_error err = SLUICE_ERROR_INIT;
    char *json = NULL;

    if (sluice_model_inspect(path, NULL, NULL, &json, &err) != SLUICE_OK) {
        cli_print_error(c, &err, "inspecting");
        return EXIT_MODEL;
    }
    printf("%s\n", json);
    sluice_text_free(NULL, NULL, json);
    return EXIT_DONE;
}

static int inspect(const cli *c, const char *path)
{
    sluice_error err = SLUICE_ERROR_INIT;
    char *text = NULL;

    if (c->json)
        return inspect_json(c, path);
    if (sluice_model_describe(path, c->model_options.tensors, sluice_platform_default(), NULL, &text, &err) != SLUICE_OK) {
        cli_print_error(c, &err, "inspecting");
        return EXIT_MODEL;
    }
    const size_t title = strcspn(text, "\n");
    fputs(cli_paint(c->color_out, CLI_BOLD), stdout);
    cli_print_text(stdout, text, title);
    fputs(cli_paint(c->color_out, CLI_OFF), stdout);
    cli_print_text(stdout, text + title, strlen(text + title));
    sluice_model_text_free(NULL, text);
    return EXIT_DONE;
}

/* ---- quantize ----------------------------------------------------------------------------------------------- */

static void print_quantized(const cli *c, const char *out, const char *type, const sluice_model_quantize_result *r)
{
    const double seconds = (double)r->us / 1e6;

    if (c->json) {
        fputs("{\"file\": ", stdout);
        cli_json_str(stdout, out, strlen(out));
        fputs(", \"type\": ", stdout);
        cli_json_str(stdout, type, strlen(type));
        printf(", \"in_bytes\": %llu, \"out_bytes\": %llu, \"n_tensors\": %u, \"n_changed\": %u, \"n_fallback\": %u, "
               "\"n_without_importance\": %u, \"calibrated_tokens\": %u, \"seconds\": %.3f}\n",
               (unsigned long long)r->in_bytes, (unsigned long long)r->out_bytes, r->n_tensors, r->n_changed, r->n_fallback,
               r->n_without_importance, r->calibrated_tokens, seconds);
        return;
    }
    cli_print_text(stdout, out, strlen(out));
    printf(": %s%.1f MB%s from %.1f MB, %u of %u tensors changed, in %.1f s (%.0f MB/s)\n", cli_paint(c->color_out, CLI_BOLD),
           (double)r->out_bytes / 1e6, cli_paint(c->color_out, CLI_OFF), (double)r->in_bytes / 1e6, r->n_changed, r->n_tensors, seconds,
           seconds > 0 ? (double)r->in_bytes / 1e6 / seconds : 0);
    if (r->n_fallback > 0)
        printf("  %u tensor%s took a type of shorter blocks: rows are no multiple of 256 weights\n", r->n_fallback, r->n_fallback == 1 ? "" : "s");
    if (r->calibrated_tokens > 0)
        printf("  calibrated with %u tokens\n", r->calibrated_tokens);
    if (r->n_without_importance > 0)
        printf("  %u tensor%s without an entry in the importance matrix, or with experts without one: all columns count the same\n",
               r->n_without_importance, r->n_without_importance == 1 ? "" : "s");
}

/* The library makes files for their owner alone; a model is no secret, and the user's mask says who may read what they make. */
static void open_to_others(const char *path)
{
    const mode_t mask = umask(0);

    (void)umask(mask);
    (void)chmod(path, 0666 & ~mask);
}

static int quantize(const cli *c)
{
    sluice_model_quantize_options o;
    sluice_model_quantize_result r;
    sluice_error err = SLUICE_ERROR_INIT;
    char what[400];

    if (c->n_args != 4) {
        (void)snprintf(what, sizeof what, "model quantize wants IN.gguf OUT.gguf TYPE, TYPE one of %s", sluice_model_quantize_types());
        return cli_usage(c->json, what, "");
    }
    meter m = start_meter(c);
    memset(&o, 0, sizeof o);
    o.type = c->args[3];
    o.imatrix = c->model_options.imatrix;
    o.calibrate = c->model_options.calibrate;
    o.imatrix_out = c->model_options.save_imatrix;
    o.calibrate_tokens = c->model_options.calibrate_tokens;
    o.n_threads = c->model_options.threads;
    o.allow_requantize = c->model_options.allow_requantize;
    o.overwrite = c->model_options.force;
    o.pure = c->model_options.pure;
    o.progress = on_progress;
    o.user = &m;
    const sluice_status st = sluice_model_quantize(c->args[1], c->args[2], &o, sluice_platform_default(), NULL, &r, &err);
    end_meter(&m);
    if (st != SLUICE_OK) {
        cli_print_error(c, &err, "quantizing");
        return code_of(&err, c->args[1]);
    }
    open_to_others(c->args[2]);
    print_quantized(c, c->args[2], c->args[3], &r);
    return EXIT_DONE;
}

/* ---- bench --------------------------------------------------------------------------------------------------- */

static double mib(uint64_t bytes)
{
    return (double)bytes / (1 << 20);
}

static void print_speed_json(const char *name, const sluice_bench_speed *s)
{
    printf(", \"%s\": {\"median\": %.2f, \"mean\": %.2f, \"deviation\": %.2f, \"slowest\": %.2f, \"fastest\": %.2f}", name, s->median, s->mean,
           s->deviation, s->slowest, s->fastest);
}

static void print_bench_json(const char *path, const sluice_model_bench_result *r)
{
    fputs("{\"file\": ", stdout);
    cli_json_str(stdout, path, strlen(path));
    fputs(", \"architecture\": ", stdout);
    cli_json_str(stdout, r->architecture, strlen(r->architecture));
    fputs(", \"name\": ", stdout);
    cli_json_str(stdout, r->name, strlen(r->name));
    printf(", \"file_type\": \"%s\", \"kernels\": \"%s\", \"n_threads\": %u, \"context_tokens\": %u, \"prompt_tokens\": %u, \"decode_tokens\": %u, "
           "\"rounds\": %u, \"n_parameters\": %llu",
           r->file_type, r->kernels, r->n_threads, r->context_tokens, r->prompt_tokens, r->decode_tokens, r->rounds,
           (unsigned long long)r->n_parameters);
    print_speed_json("prefill_tokens_per_second", &r->prefill);
    if (!r->is_encoder)
        print_speed_json("decode_tokens_per_second", &r->decode);
    printf(", \"open_ms\": %.3f, \"first_token_ms\": %.3f, \"mapped_bytes\": %llu, \"kv_bytes\": %llu, \"scratch_bytes\": %llu, \"peak_bytes\": %llu}\n",
           (double)r->open_us / 1e3, (double)r->first_token_us / 1e3, (unsigned long long)r->mapped_bytes, (unsigned long long)r->kv_bytes,
           (unsigned long long)r->scratch_bytes, (unsigned long long)r->peak_bytes);
}

static void print_speed(const cli *c, const char *name, uint32_t tokens, const sluice_bench_speed *s)
{
    printf("  %-8s %5u tokens  %s%9.1f tokens/s%s  ± %.1f  (%.1f … %.1f)\n", name, tokens, cli_paint(c->color_out, CLI_BOLD), s->median,
           cli_paint(c->color_out, CLI_OFF), s->deviation, s->slowest, s->fastest);
}

static void print_bench(const cli *c, const char *path, const sluice_model_bench_result *r)
{
    if (c->json) {
        print_bench_json(path, r);
        return;
    }
    cli_print_text(stdout, r->name[0] != '\0' ? r->name : path, strlen(r->name[0] != '\0' ? r->name : path));
    printf("  (%s, %s, %.1f M parameters; %s, %u thread%s, context %u, %u rounds)\n", r->architecture, r->file_type, (double)r->n_parameters / 1e6,
           r->kernels, r->n_threads, r->n_threads == 1 ? "" : "s", r->context_tokens, r->rounds);
    print_speed(c, r->is_encoder ? "embed" : "prefill", r->prompt_tokens, &r->prefill);
    if (!r->is_encoder)
        print_speed(c, "decode", r->decode_tokens, &r->decode);
    printf("  %s after a warm start: %.1f ms, of which opening took %.1f\n", r->is_encoder ? "embedding" : "first token", (double)r->first_token_us / 1e3,
           (double)r->open_us / 1e3);
    printf("  memory: %.1f MiB of file, %.1f KV cache and %.1f scratch estimated; %.1f allocated at the most\n", mib(r->mapped_bytes),
           mib(r->kv_bytes), mib(r->scratch_bytes), mib(r->peak_bytes));
}

static int bench(const cli *c, const char *path)
{
    sluice_model_bench_options o;
    sluice_model_bench_result r;
    sluice_error err = SLUICE_ERROR_INIT;
    meter m = start_meter(c);

    memset(&o, 0, sizeof o);
    o.prompt_tokens = c->model_options.prompt;
    o.decode_tokens = c->model_options.decode;
    o.n_threads = c->model_options.threads;
    o.context_tokens = c->model_options.context;
    o.rounds = c->model_options.rounds;
    o.progress = on_progress;
    o.user = &m;
    const sluice_status st = sluice_model_bench(path, &o, sluice_platform_default(), &r, &err);
    end_meter(&m);
    if (st != SLUICE_OK) {
        cli_print_error(c, &err, "measuring");
        return code_of(&err, path);
    }
    print_bench(c, path, &r);
    return EXIT_DONE;
}

/* ---- dispatch -------------------------------------------------------------------------------------------------- */

int cmd_model(const cli *c)
{
    const char *verb = c->n_args > 0 ? c->args[0] : "";
    char path[CLI_PATH_MAX];

    if (strcmp(verb, "quantize") == 0)
        return quantize(c);
    if (strcmp(verb, "inspect") != 0 && strcmp(verb, "bench") != 0)
        return cli_usage(c->json, "model wants inspect, quantize or bench", "");
    if (c->n_args > 2)
        return cli_usage(c->json, "this is one file too many:", c->args[2]);
    if (c->n_args == 2 ? (size_t)snprintf(path, sizeof path, "%s", c->args[1]) >= sizeof path : !cli_model_path(c, path, sizeof path))
        return cli_usage(c->json, "model inspect and bench want a file", "");
    return strcmp(verb, "inspect") == 0 ? inspect(c, path) : bench(c, path);
}
