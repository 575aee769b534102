/* Exit status 0 if standard input is one JSON value. */
#include <stdio.h>
#include <yajl/yajl_parse.h>

int main(void) {
  static const yajl_callbacks nothing;
  yajl_handle parser = yajl_alloc(&nothing, NULL, NULL);
  unsigned char bytes[4096];
  yajl_status status = yajl_status_ok;
  for (size_t size; status == yajl_status_ok && (size = fread(bytes, 1, sizeof bytes, stdin)) > 0;) status = yajl_parse(parser, bytes, size);
  if (status == yajl_status_ok) status = yajl_complete_parse(parser);
  yajl_free(parser);
  return status != yajl_status_ok;
}
