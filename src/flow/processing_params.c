/* super-gradients' `processing_params`: class names and the chain of image transforms a checkpoint was validated with (yolo-nas-model 7.4). */
#include <stdlib.h>
#include <string.h>

#include "flow/model.h"

static bnd_status read_classes(const char *path, const bnd_value *names, bnd_class_names *classes, bnd_error *error) {
  if (!names || names->kind == BND_VALUE_NONE) return BND_OK;
  if (names->kind != BND_VALUE_LIST && names->kind != BND_VALUE_TUPLE)
    return bnd_fail(error, BND_ERROR_FORMAT, "%s: processing_params: class_names is not a list", path);
  for (size_t i = 0; i < names->list.count; i++) {
    const char *text = bnd_value_text(names->list.items[i]);
    if (!text) return bnd_fail(error, BND_ERROR_FORMAT, "%s: processing_params: class name %zu is not text", path, i);
    if (!bnd_class_names_add(classes, text)) return bnd_fail_memory(error, "class names");
  }
  return BND_OK;
}

/* A pair (height, width), or one number for both. */
static bool read_size(const bnd_value *value, int *height, int *width) {
  double h, w;
  if (!value) return false;
  if (bnd_value_number(value, &h)) {
    w = h;
  } else if ((value->kind == BND_VALUE_LIST || value->kind == BND_VALUE_TUPLE) && value->list.count == 2) {
    if (!bnd_value_number(value->list.items[0], &h) || !bnd_value_number(value->list.items[1], &w)) return false;
  } else {
    return false;
  }
  if (!(h >= 1 && h <= 65536 && w >= 1 && w <= 65536)) return false;
  *height = (int)h;
  *width = (int)w;
  return true;
}

static bool read_numbers(const bnd_value *value, float numbers[3]) {
  double number;
  if (!value || (value->kind != BND_VALUE_LIST && value->kind != BND_VALUE_TUPLE) || value->list.count != 3) return false;
  for (int i = 0; i < 3; i++) {
    if (!bnd_value_number(value->list.items[i], &number)) return false;
    numbers[i] = (float)number;
  }
  return true;
}

/* Applies one step; false when its arguments cannot be understood. */
static bool read_step(const char *name, const bnd_value *arguments, bnd_preprocessing *p, bool *known) {
  double number;
  *known = true;
  if (strcmp(name, "ReverseImageChannels") == 0) {
    p->bgr = !p->bgr;
  } else if (strcmp(name, "DetectionLongestMaxSizeRescale") == 0 || strcmp(name, "DetectionRescale") == 0) {
    p->rescale = name[9] == 'L' ? BND_RESCALE_LONGEST_ROUND : BND_RESCALE_STRETCH;
    return read_size(bnd_value_get(arguments, "output_shape"), &p->rescale_height, &p->rescale_width);
  } else if (strcmp(name, "DetectionCenterPadding") == 0 || strcmp(name, "DetectionBottomRightPadding") == 0) {
    p->padding = name[9] == 'C' ? BND_PAD_CENTER : BND_PAD_BOTTOM_RIGHT;
    if (!read_size(bnd_value_get(arguments, "output_shape"), &p->height, &p->width)) return false;
    if (bnd_value_number(bnd_value_get(arguments, "pad_value"), &number)) {
      if (!(number >= 0 && number <= 255)) return false;
      p->pad_value = (uint8_t)number;
    }
  } else if (strcmp(name, "StandardizeImage") == 0) {
    p->max_value = 255;
    if (bnd_value_number(bnd_value_get(arguments, "max_value"), &number)) p->max_value = number;
    return p->max_value > 0;
  } else if (strcmp(name, "NormalizeImage") == 0) {
    p->normalize = true;
    return read_numbers(bnd_value_get(arguments, "mean"), p->mean) && read_numbers(bnd_value_get(arguments, "std"), p->std);
  } else if (strcmp(name, "ImagePermute") != 0) { /* always channels first */
    *known = false;
  }
  return true;
}

static bnd_status read_chain(const char *path, const bnd_value *processor, bnd_preprocessing *p, bnd_error *error) {
  const bnd_value *steps = bnd_value_get(bnd_value_get(processor, "ComposeProcessing"), "processings");
  if (!steps || (steps->kind != BND_VALUE_LIST && steps->kind != BND_VALUE_TUPLE))
    return bnd_fail(error, BND_ERROR_FORMAT, "%s: processing_params: image_processor is not a ComposeProcessing with a list of steps", path);
  *p = (bnd_preprocessing){.pad_value = 114};
  for (size_t i = 0; i < steps->list.count; i++) {
    const bnd_value *step = steps->list.items[i], *arguments = NULL;
    const char *name = bnd_value_text(step);
    if (!name && step->kind == BND_VALUE_DICT && step->dict.count == 1) {
      name = bnd_value_text(step->dict.pairs[0].key);
      arguments = step->dict.pairs[0].value;
    }
    bool known = false;
    if (!name || !read_step(name, arguments, p, &known))
      return bnd_fail(error, BND_ERROR_FORMAT, "%s: processing_params: step %zu (%s) has arguments that cannot be understood", path, i, name ? name : "?");
    if (!known) return bnd_fail(error, BND_ERROR_UNSUPPORTED, "%s: processing_params: the image transform %s is not supported", path, name);
  }
  if (p->width == 0) {
    p->width = p->rescale_width;
    p->height = p->rescale_height;
  }
  return p->width ? BND_OK : bnd_fail(error, BND_ERROR_FORMAT, "%s: processing_params: no step says how large the input is", path);
}

bnd_status bnd_processing_params_read(const char *path, const bnd_value *params, bnd_class_names *classes, bnd_preprocessing *preprocessing, bool *found,
                                      bnd_error *error) {
  *found = false;
  if (!params || params->kind == BND_VALUE_NONE) return BND_OK;
  if (params->kind != BND_VALUE_DICT) return bnd_fail(error, BND_ERROR_FORMAT, "%s: processing_params is not a dict", path);
  BND_TRY(read_classes(path, bnd_value_get(params, "class_names"), classes, error));
  const bnd_value *processor = bnd_value_get(params, "image_processor");
  if (!processor || processor->kind == BND_VALUE_NONE) return BND_OK;
  BND_TRY(read_chain(path, processor, preprocessing, error));
  BND_TRY(bnd_preprocessing_check(preprocessing, path, error));
  *found = true;
  return BND_OK;
}

/* --- writing --- */

static void begin_step(bnd_checkpoint_writer *w, const char *name) {
  bnd_checkpoint_begin_dict(w, NULL);
  bnd_checkpoint_begin_dict(w, name);
}

static void end_step(bnd_checkpoint_writer *w) {
  bnd_checkpoint_end(w);
  bnd_checkpoint_end(w);
}

static void put_size(bnd_checkpoint_writer *w, int height, int width) {
  bnd_checkpoint_begin_list(w, "output_shape");
  bnd_checkpoint_put_int(w, NULL, height);
  bnd_checkpoint_put_int(w, NULL, width);
  bnd_checkpoint_end(w);
}

static void put_numbers(bnd_checkpoint_writer *w, const char *key, const float numbers[3]) {
  bnd_checkpoint_begin_list(w, key);
  for (int i = 0; i < 3; i++) bnd_checkpoint_put_float(w, NULL, (double)numbers[i]);
  bnd_checkpoint_end(w);
}

static void put_chain(bnd_checkpoint_writer *w, const bnd_preprocessing *p) {
  if (p->bgr) bnd_checkpoint_put_text(w, NULL, "ReverseImageChannels");
  if (p->rescale != BND_RESCALE_NONE) {
    begin_step(w, p->rescale == BND_RESCALE_STRETCH ? "DetectionRescale" : "DetectionLongestMaxSizeRescale");
    put_size(w, p->rescale_height, p->rescale_width);
    end_step(w);
  }
  begin_step(w, p->padding == BND_PAD_CENTER ? "DetectionCenterPadding" : "DetectionBottomRightPadding");
  put_size(w, p->height, p->width);
  bnd_checkpoint_put_int(w, "pad_value", p->pad_value);
  end_step(w);
  if (p->max_value > 0) {
    begin_step(w, "StandardizeImage");
    bnd_checkpoint_put_float(w, "max_value", p->max_value);
    end_step(w);
  }
  if (p->normalize) {
    begin_step(w, "NormalizeImage");
    put_numbers(w, "mean", p->mean);
    put_numbers(w, "std", p->std);
    end_step(w);
  }
  begin_step(w, "ImagePermute");
  bnd_checkpoint_begin_list(w, "permutation");
  bnd_checkpoint_put_int(w, NULL, 2), bnd_checkpoint_put_int(w, NULL, 0), bnd_checkpoint_put_int(w, NULL, 1);
  bnd_checkpoint_end(w);
  end_step(w);
}

void bnd_processing_params_write(bnd_checkpoint_writer *w, const bnd_class_names *classes, const bnd_preprocessing *preprocessing) {
  bnd_checkpoint_begin_dict(w, "processing_params");
  bnd_checkpoint_begin_list(w, "class_names");
  for (size_t i = 0; i < classes->count; i++) bnd_checkpoint_put_text(w, NULL, classes->names[i]);
  bnd_checkpoint_end(w);
  bnd_checkpoint_begin_dict(w, "image_processor");
  bnd_checkpoint_begin_dict(w, "ComposeProcessing");
  bnd_checkpoint_begin_list(w, "processings");
  put_chain(w, preprocessing);
  bnd_checkpoint_end(w);
  bnd_checkpoint_end(w);
  bnd_checkpoint_end(w);
  /* what get_dataset_preprocessing_params writes for every detection data set */
  bnd_checkpoint_put_float(w, "iou", 0.65);
  bnd_checkpoint_put_float(w, "conf", 0.5);
  bnd_checkpoint_end(w);
}
