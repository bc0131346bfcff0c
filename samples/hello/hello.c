/* hello.c - ask one question and print the answer.
 *
 *   sluice-hello POLICY.json MODEL.gguf "what is the weather like?"
 *
 * Events are pulled with sluice_poll(), so everything happens on one thread.  Without a state folder nothing can be recorded, so nothing
 * leaves the device, whatever the policy says.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>
#include <string.h>

#include "sluice/sluice.h"

static void on_event(const sluice_event *e, void *user)
{
    if (e->kind == SLUICE_EVENT_TEXT)
        printf("%.*s", (int)e->text.len, (const char *)e->text.ptr);
    if (e->kind == SLUICE_EVENT_DONE) {
        printf("\n(%s, %s, confidence %.2f)\n", sluice_outcome_name(e->outcome), sluice_route_name(e->route), (double)e->confidence);
        *(bool *)user = true;
    }
}

static int complain(const sluice_error *err)
{
    fprintf(stderr, "sluice-hello: %s\n  %s\n", err->message, err->hint);
    return 1;
}

int main(int argc, char **argv)
{
    sluice_error err = SLUICE_ERROR_INIT;
    sluice_options options;
    sluice_request request;
    sluice_message message;
    bool is_done = false;
    sluice *s;

    if (argc != 4) {
        fprintf(stderr, "usage: sluice-hello POLICY.json MODEL.gguf QUESTION\n");
        return 2;
    }
    sluice_options_init(&options, sizeof options);
    options.policy_path = argv[1];
    options.model_path = argv[2];
    options.poll_events = true;
    if (sluice_open(&s, &options, &err) != SLUICE_OK)
        return complain(&err);

    message = (sluice_message){ .role = "user", .text = { (const uint8_t *)argv[3], strlen(argv[3]) } };
    sluice_request_init(&request, sizeof request);
    request.messages = &message;
    request.n_messages = 1;
    if (sluice_submit(s, &request, on_event, &is_done, NULL, &err) != SLUICE_OK) {
        sluice_close(s);
        return complain(&err);
    }
    while (!is_done)
        (void)sluice_poll(s, 1000, NULL);
    sluice_close(s);
    return 0;
}
