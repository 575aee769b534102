/* The convolutions of YOLO-NAS S (convolutions.txt), and oneDNN alone at work on them. */
#ifndef BINADE_BENCH_CONVOLUTIONS_H
#define BINADE_BENCH_CONVOLUTIONS_H

#include "bench.h"

#include "kernels/onednn/compat.h"

enum { MOST_CONVOLUTIONS = 128 };

typedef struct layer_shape {
  char name[64];
  int in, out, height, width, window, stride, padding, relu;
} layer_shape;

static inline int read_convolutions(layer_shape shapes[MOST_CONVOLUTIONS]) {
  FILE *file = fopen(BENCH_FOLDER "/convolutions.txt", "r");
  char line[256];
  int count = 0;
  if (!file) die("convolutions.txt is missing");
  while (fgets(line, sizeof line, file) && count < MOST_CONVOLUTIONS) {
    layer_shape *l = &shapes[count];
    if (line[0] == '#') continue;
    if (sscanf(line, "%63s %d %d %d %d %d %d %d %d", l->name, &l->in, &l->out, &l->height, &l->width, &l->window, &l->stride, &l->padding, &l->relu) != 9)
      die("convolutions.txt");
    count++;
  }
  fclose(file);
  return count;
}

/* --cpu-time: processor time */
static clockid_t clock_id = CLOCK_MONOTONIC;
static inline double now_ms(void) { return bnd_clock_seconds(clock_id) * 1e3; }

static inline void check(dnnl_status_t status) {
  if (status != dnnl_success) die("oneDNN failed");
}

/* The types and layouts of a convolution's input and output as oneDNN is offered them. */
typedef struct offer {
  dnnl_data_type_t x_type, w_type, y_type;
  dnnl_format_tag_t x_layout, y_layout;
  const float *scale; /* one for all channels; NULL = none */
} offer;

/* oneDNN's convolution for the layer, with bias and relu; *kernel: its name. False: it has none, or none but its reference. */
static inline bool describe_convolution(dnnl_engine_t engine, const layer_shape *l, const offer *o, dnnl_primitive_desc_t *description, const char **kernel) {
  const dnnl_dims_t x_dims = {1, l->in, l->height, l->width}, y_dims = {1, l->out, l->height / l->stride, l->width / l->stride};
  const dnnl_dims_t w_dims = {l->out, l->in, l->window, l->window}, b_dims = {l->out};
  bnd_dnnl_desc x, y, w, b;
  check(bnd_dnnl_desc_init(&x, 4, x_dims, o->x_type, o->x_layout));
  check(bnd_dnnl_desc_init(&y, 4, y_dims, o->y_type, o->y_layout));
  check(bnd_dnnl_desc_init(&w, 4, w_dims, o->w_type, dnnl_format_tag_any));
  check(bnd_dnnl_desc_init(&b, 1, b_dims, dnnl_f32, dnnl_a));
  const bnd_dnnl_convolution convolution = {BND_DNNL_INFERENCE,
                                            bnd_dnnl_desc_get(&x),
                                            bnd_dnnl_desc_get(&w),
                                            bnd_dnnl_desc_get(&b),
                                            bnd_dnnl_desc_get(&y),
                                            {l->stride, l->stride},
                                            {0, 0},
                                            {l->padding, l->padding}};
  dnnl_primitive_attr_t attributes;
  dnnl_post_ops_t tail;
  check(dnnl_primitive_attr_create(&attributes));
  check(dnnl_primitive_attr_set_scratchpad_mode(attributes, dnnl_scratchpad_mode_user));
  if (o->scale) check(bnd_dnnl_set_scales(attributes, 1, o->scale));
  check(dnnl_post_ops_create(&tail));
  if (l->relu) check(bnd_dnnl_append_eltwise(tail, dnnl_eltwise_relu, 0.f, 0.f));
  check(dnnl_primitive_attr_set_post_ops(attributes, tail));
  check(dnnl_post_ops_destroy(tail));
  const dnnl_status_t status = bnd_dnnl_convolution_describe(description, engine, &convolution, NULL, attributes);
  check(dnnl_primitive_attr_destroy(attributes));
  if (status != dnnl_success) return false;
  check(dnnl_primitive_desc_query(*description, dnnl_query_impl_info_str, 0, kernel));
  return strstr(*kernel, "ref") == NULL;
}

#endif
