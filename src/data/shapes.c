#include "data/shapes.h"

#include <math.h>
#include <stdlib.h>

#include "base/memory.h"
#include "data/draw_effects.h"
#include "data/draw_mask.h"

enum { CIRCLE, SQUARE, TRIANGLE, STAR, CROSS, RING, HEXAGON, ARROW };
enum { PURPOSE_SCENE = 0x73686170, PURPOSE_NOISE }; /* names of random streams */

static const int MOST_LINES = 25;
static const double LEAST_RADIUS = 9, MOST_RADIUS = 150, RADIUS_SIDE = 640; /* the largest figures of a picture with this longest possible side */
static const double MOST_NOISE = 14, BLURRED_SHARE = 0.35, LEAST_VISIBLE_SHARE = 0.4;

const char *bnd_shapes_class_name(int label) {
  static const char *const names[BND_SHAPES_CLASSES] = {"circle", "square", "triangle", "star", "cross", "ring", "hexagon", "arrow"};
  return names[label];
}

typedef struct color {
  uint8_t channel[3];
} color;

typedef struct scene {
  bnd_random random;
  bnd_image *image;
  bnd_mask mask;  /* the figure being drawn */
  uint8_t *owner; /* [height][width] 1 + index of the topmost figure, 0 = none */
  bnd_shapes_object objects[BND_SHAPES_MOST_OBJECTS];
  int object_count;
  double most_radius;
} scene;

/* Uniform in low..high, both included. */
static int whole(bnd_random *random, int low, int high) { return low + (int)bnd_random_below(random, (uint64_t)(high - low) + 1); }

/* low * (high / low)^u for a uniform u of 24 bits, by square roots alone: those are rounded alike everywhere. */
static double between_in_logarithm(bnd_random *random, double low, double high) {
  const uint32_t bits = bnd_random_u32(random) >> 8;
  double value = low, root = high / low;
  for (int i = 23; i >= 0; i--) {
    root = sqrt(root);
    if (bits >> i & 1) value *= root;
  }
  return value;
}

/* (cos, sin) of an angle given in turns, 0 <= turns < 2: Taylor series within an eighth of a turn, then quarters. Error below 1e-11. */
static void direction(double turns, double *x, double *y) {
  const int quarter = (int)(turns * 4 + 0.5);
  const double a = (turns - quarter * 0.25) * 6.283185307179586, q = a * a;
  const double s = a * (1 - q / 6 * (1 - q / 20 * (1 - q / 42 * (1 - q / 72 * (1 - q / 110)))));
  const double c = 1 - q / 2 * (1 - q / 12 * (1 - q / 30 * (1 - q / 56 * (1 - q / 90 * (1 - q / 132)))));
  switch (quarter & 3) {
    case 0: *x = c, *y = s; break;
    case 1: *x = -s, *y = c; break;
    case 2: *x = -c, *y = -s; break;
    default: *x = s, *y = -c;
  }
}

static int nearest(double value) { return (int)floor(value + 0.5); }

/* Corners of the figures with radius 1. */
static const double cross_corners[][2] = {{1, .3}, {.3, .3}, {.3, 1}, {-.3, 1}, {-.3, .3}, {-1, .3},
                                          {-1, -.3}, {-.3, -.3}, {-.3, -1}, {.3, -1}, {.3, -.3}, {1, -.3}};
static const double arrow_corners[][2] = {{1, 0}, {.2, .65}, {.2, .25}, {-1, .25}, {-1, -.25}, {.2, -.25}, {.2, -.65}};
static const double star_inner_radius = 0.42;

typedef struct pose {
  double x, y, radius, turns;
} pose;

/* Corners given for radius 1, turned, enlarged and moved. */
static void mark_outline(bnd_mask *mask, const double (*corners)[2], int count, pose at) {
  bnd_point points[BND_MASK_MAX_POINTS];
  double x, y;
  direction(at.turns, &x, &y);
  x *= at.radius;
  y *= at.radius;
  for (int i = 0; i < count; i++)
    points[i] = (bnd_point){nearest(at.x + (corners[i][0] * x - corners[i][1] * y)), nearest(at.y + (corners[i][0] * y + corners[i][1] * x))};
  bnd_mask_polygon(mask, points, count);
}

/* Corners evenly around the centre, every second one at `inner` of the radius. */
static void mark_regular(bnd_mask *mask, int count, double inner, pose at) {
  double corners[BND_MASK_MAX_POINTS][2];
  for (int i = 0; i < count; i++) {
    direction((double)i / count, &corners[i][0], &corners[i][1]);
    for (int k = 0; k < 2 && i % 2; k++) corners[i][k] *= inner;
  }
  mark_outline(mask, (const double(*)[2])corners, count, at);
}

/* Circles end between pixels: as many on both sides of the centre. */
static void mark_circle(bnd_mask *mask, pose at) { bnd_mask_ring(mask, (bnd_point){(int)at.x, (int)at.y}, -1, (int)at.radius + 0.5); }

static void mark_ring(bnd_mask *mask, pose at) {
  const int middle = (int)(at.radius * 0.85), half = ((int)(at.radius * 0.3) + 1) / 2;
  bnd_mask_ring(mask, (bnd_point){(int)at.x, (int)at.y}, middle - half - 1, middle + half + 0.5);
}

static void mark_figure(bnd_mask *mask, int label, pose at) {
  switch (label) {
    case CIRCLE: mark_circle(mask, at); break;
    case SQUARE: mark_regular(mask, 4, 1, at); break;
    case TRIANGLE: mark_regular(mask, 3, 1, at); break;
    case STAR: mark_regular(mask, 10, star_inner_radius, at); break;
    case CROSS: mark_outline(mask, cross_corners, 12, at); break;
    case RING: mark_ring(mask, at); break;
    case HEXAGON: mark_regular(mask, 6, 1, at); break;
    default: mark_outline(mask, arrow_corners, 7, at);
  }
}

static bnd_point point_in(scene *s) { return (bnd_point){whole(&s->random, 0, s->image->width - 1), whole(&s->random, 0, s->image->height - 1)}; }

static color any_color(scene *s) {
  color result;
  for (int c = 0; c < 3; c++) result.channel[c] = (uint8_t)whole(&s->random, 0, 255);
  return result;
}

/* Blends the colour in where the mask covers, empties the mask and tells the smallest box and the number of the figure's pixels. `owner` 0 leaves
   the owners as they are. */
static bnd_shapes_object paint_mask(scene *s, color paint, uint8_t owner) {
  const bnd_mask *mask = &s->mask;
  int left = mask->width, top = mask->height, right = 0, bottom = 0, area = 0;
  for (int y = mask->top; y < mask->bottom; y++) {
    for (int x = mask->left; x < mask->right; x++) {
      const size_t at = (size_t)y * (size_t)mask->width + (size_t)x;
      const int cover = mask->cover[at];
      if (!cover) continue;
      uint8_t *pixel = s->image->pixels + 3 * at;
      for (int c = 0; c < 3; c++)
        pixel[c] = (uint8_t)((pixel[c] * (BND_MASK_ALL - cover) + paint.channel[c] * cover + BND_MASK_ALL / 2) / BND_MASK_ALL);
      if (cover < BND_MASK_HALF) continue;
      if (owner) s->owner[at] = owner;
      area++;
      left = x < left ? x : left;
      right = x >= right ? x + 1 : right;
      top = y < top ? y : top;
      bottom = y + 1;
    }
  }
  bnd_mask_clear(&s->mask);
  return (bnd_shapes_object){.left = left, .top = top, .width = right - left, .height = bottom - top, .area = area};
}

static void draw_lines(scene *s) {
  for (int left = whole(&s->random, 0, MOST_LINES); left > 0; left--) {
    const bnd_point from = point_in(s), to = point_in(s);
    static const int widths[] = {1, 3, 5, 5};
    bnd_mask_line(&s->mask, from, to, widths[whole(&s->random, 0, 3)]);
    paint_mask(s, any_color(s), 0);
  }
}

static void draw_figures(scene *s) {
  s->object_count = whole(&s->random, 1, BND_SHAPES_MOST_OBJECTS);
  for (int i = 0; i < s->object_count; i++) {
    const int label = whole(&s->random, 0, BND_SHAPES_CLASSES - 1);
    pose at;
    at.x = bnd_random_between(&s->random, 0, s->image->width);
    at.y = bnd_random_between(&s->random, 0, s->image->height);
    at.radius = between_in_logarithm(&s->random, LEAST_RADIUS, s->most_radius);
    at.turns = bnd_random_uniform(&s->random);
    mark_figure(&s->mask, label, at);
    s->objects[i] = paint_mask(s, any_color(s), (uint8_t)(i + 1));
    s->objects[i].label = label;
  }
}

/* The figures of which enough is left to see. */
static void keep_visible(const scene *s, bnd_shapes_picture *picture) {
  int visible[BND_SHAPES_MOST_OBJECTS + 1] = {0};
  const size_t count = (size_t)s->image->width * (size_t)s->image->height;
  for (size_t i = 0; i < count; i++) visible[s->owner[i]]++;
  for (int i = 0; i < s->object_count; i++) {
    bnd_shapes_object object = s->objects[i];
    object.visible = visible[i + 1];
    if (object.visible > 0 && object.visible >= LEAST_VISIBLE_SHARE * object.area) picture->objects[picture->object_count++] = object;
  }
}

/* One side of every second picture is as long as sides may be. */
static void choose_size(bnd_random *random, const bnd_shapes_recipe *recipe, int *width, int *height) {
  *width = whole(random, recipe->least_side, recipe->most_side);
  *height = whole(random, recipe->least_side, recipe->most_side);
  if (bnd_random_chance(random, 0.5)) *(bnd_random_chance(random, 0.5) ? width : height) = recipe->most_side;
}

static bnd_status draw_scene(const bnd_shapes_recipe *recipe, uint32_t index, scene *s, bnd_shapes_picture *picture, bnd_error *error) {
  int width, height;
  choose_size(&s->random, recipe, &width, &height);
  s->image = &picture->image;
  s->most_radius = MOST_RADIUS * recipe->most_side / RADIUS_SIDE;
  BND_TRY(bnd_image_create(width, height, s->image, error));
  BND_TRY(bnd_mask_create(width, height, &s->mask, error));
  s->owner = bnd_calloc((size_t)width, (size_t)height);
  if (!s->owner) return bnd_fail_memory(error, "a drawing");

  const int rows = whole(&s->random, 2, BND_CLOUDS_MAX_CELLS), columns = whole(&s->random, 2, BND_CLOUDS_MAX_CELLS);
  bnd_draw_clouds(s->image, rows, columns, &s->random);
  draw_lines(s);
  draw_figures(s);
  keep_visible(s, picture);
  const bnd_random noise = bnd_random_stream(recipe->seed, recipe->stream, index, PURPOSE_NOISE);
  bnd_draw_noise(s->image, (float)bnd_random_between(&s->random, 0, MOST_NOISE), &noise);
  return bnd_random_chance(&s->random, BLURRED_SHARE) ? bnd_draw_blur(s->image, error) : BND_OK;
}

bnd_status bnd_shapes_draw(const bnd_shapes_recipe *recipe, uint32_t index, bnd_shapes_picture *picture, bnd_error *error) {
  scene s = {.random = bnd_random_stream(recipe->seed, recipe->stream, index, PURPOSE_SCENE)};
  *picture = (bnd_shapes_picture){0};
  const bnd_status status = draw_scene(recipe, index, &s, picture, error);
  bnd_mask_free(&s.mask);
  free(s.owner);
  if (status != BND_OK) {
    bnd_image_free(&picture->image);
    *picture = (bnd_shapes_picture){0};
  }
  return status;
}
