/* Inside the JSON layer: a stream that can be asked where it stands. */
#ifndef BND_FORMATS_JSON_JSON_POSITION_H
#define BND_FORMATS_JSON_JSON_POSITION_H

#include "formats/json/json.h"

struct bnd_json_position;

/* As bnd_json_stream; *position is set before the first event and valid until the call returns. */
bnd_status bnd_json_stream_positioned(const char *name, const char *text, size_t length, bnd_json_handler *handler, void *user,
                                      struct bnd_json_position **position, bnd_error *error);
/* The 1-based line of the event being delivered. */
size_t bnd_json_position_line(struct bnd_json_position *position);

#endif
