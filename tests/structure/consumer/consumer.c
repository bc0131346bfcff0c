/* consumer.c - an app that links the SDK beside other versions of what the SDK bundles
 *
 * The functions named as third parties' would make the link fail, or take the SDK's calls, were the
 * SDK's own copies visible.  Opening an instance makes the linker pull in all of the SDK; parsing the
 * policy makes it call its JSON reader.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <sluice/sluice.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef CONSUMER_HAS_ITS_OWN_COPIES
int curl_easy_init(void);
int cJSON_Parse(void);
int cJSON_ParseWithLengthOpts(void);
int sodium_init(void);
int mbedtls_ssl_init(void);

int curl_easy_init(void) { abort(); }
int cJSON_Parse(void) { abort(); }
int cJSON_ParseWithLengthOpts(void) { abort(); }
int sodium_init(void) { abort(); }
int mbedtls_ssl_init(void) { abort(); }
#endif

int main(void)
{
    static const char policy[] = "{ \"this is\": \"no policy\" }";
    sluice_error err = SLUICE_ERROR_INIT;
    sluice_options options;
    sluice *s = NULL;

    sluice_options_init(&options, sizeof options);
    options.policy_json.ptr = (const uint8_t *)policy;
    options.policy_json.len = strlen(policy);
    if (sluice_open(&s, &options, &err) == SLUICE_OK) {
        printf("a policy that is none was accepted\n");
        sluice_close(s);
        return 1;
    }
    printf("sluice %s refuses a bad policy: %s\n", sluice_version(), err.message);
    return 0;
}
