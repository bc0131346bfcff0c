/* fuzz_policy.c - a policy file from a stranger either loads whole or is refused with a place; a policy that loads denies what it does not name.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>

#include "policies/policy.h"

typedef struct seen { size_t n_errors, n; } seen;

static void on_finding(const sluice_policy_finding *f, void *user)
{
    seen *s = user;

    s->n++;
    s->n_errors += f->is_error;
    if (f->code == NULL || f->code[0] != 'P' || f->message[0] == '\0' || f->line == 0 || f->column == 0)
        abort();
    for (const char *c = f->message; *c != '\0'; c++)
        if ((unsigned char)*c < 0x20)
            abort(); /* it goes to terminals */
}

static sluice_status read_file(const char *name, sluice_buf *out, void *user, sluice_error *err)
{
    (void)user;
    if (name[0] == '/' || strstr(name, "..") != NULL)
        abort(); /* never asked for */
    return sluice_buf_append_str(out, "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n") ? SLUICE_OK : sluice_buf_error(out, "ca", err);
}

static void check_policy(const sluice_policy *p)
{
    for (size_t i = 0; i < p->n_endpoints; i++)
        if (strncmp(p->endpoints[i].url, "https://", 8) != 0 || p->endpoints[i].n_spki_pins == 0 || p->endpoints[i].ca_pem == NULL
            || p->endpoints[i].key_config == NULL || p->endpoints[i].target_path == NULL)
            abort();
    for (size_t purpose = 0; purpose <= p->n_purposes; purpose++)
        for (size_t endpoint = 0; endpoint <= p->n_endpoints; endpoint++)
            for (sluice_data_classes classes = 1; classes <= SLUICE_CLASS_ALL; classes += 62) {
                const sluice_policy_query q = { purpose, endpoint, classes, false, SLUICE_NETWORK_METERED, 0 };
                sluice_policy_verdict v;
                char buf[64];

                sluice_policy_evaluate(p, &q, &v);
                if (v.is_permitted
                    && (v.rule < 0 || p->rules[v.rule].effect != SLUICE_RULE_PERMIT || (classes & ~p->rules[v.rule].classes) != 0
                        || purpose >= p->n_purposes || endpoint >= p->n_endpoints || p->mode == SLUICE_MODE_LOCAL_ONLY))
                    abort();
                if (v.rule >= 0 && sluice_policy_rule_miss(p, (size_t)v.rule, &q, buf, sizeof buf) != NULL)
                    abort();
            }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    seen s = { 0, 0 };
    sluice_error err = SLUICE_ERROR_INIT;
    sluice_policy *p = NULL;
    sluice_status st = sluice_policy_parse(&p, sluice_span_of(data, size), read_file, NULL, on_finding, &s, NULL, &err);

    if ((st == SLUICE_OK) != (p != NULL) || err.status != st || (st == SLUICE_OK) != (s.n_errors == 0))
        abort();
    if (p != NULL)
        check_policy(p);
    sluice_policy_close(p);
    return 0;
}
