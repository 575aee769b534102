#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "checksum.h"
#include "data/transform.h"
#include "formats/image/draw.h"
#include "formats/image/image.h"

#define IMAGES TEST_DATA "/images/"

static size_t bytes(const bnd_image *image) { return (size_t)image->width * (size_t)image->height * 3; }

/* Each flavour of JPEG and PNG: the pixels cv2.imread gives, and the canvas made from them. */
static void every_flavour_equals_opencv(void **state) {
  (void)state;
  FILE *table = fopen(IMAGES "expected.tsv", "r");
  assert_non_null(table);
  const bnd_preprocessing p = bnd_preprocessing_yolo_nas(640, 640);
  uint8_t *canvas = malloc(640 * 640 * 3);
  char line[256], name[100], path[4096], final[16];
  int compared = 0, wrong = 0;
  while (fgets(line, sizeof line, table)) {
    int height, width;
    uint32_t pixels;
    if (line[0] == '#') continue;
    assert_int_equal(sscanf(line, "%99s %d %d %x %15s", name, &height, &width, &pixels, final), 5);
    snprintf(path, sizeof path, IMAGES "%s", name);
    bnd_image image;
    bnd_error error = {0};
    compared++;
    if (bnd_image_read(path, &image, &error) != BND_OK) {
      print_error("%s\n", error.message);
      wrong++;
      continue;
    }
    const bool same = image.width == width && image.height == height && checksum(image.pixels, bytes(&image)) == pixels;
    bool same_canvas = true;
    if (bnd_preprocess_canvas(&p, &image, canvas, NULL, NULL) == BND_OK) same_canvas = checksum(canvas, 640 * 640 * 3) == strtoul(final, NULL, 16);
    else same_canvas = final[0] == '-';
    if (!same || !same_canvas) print_error("%s: %d x %d, %s\n", name, image.width, image.height, same ? "canvas differs" : "pixels differ");
    wrong += !same || !same_canvas;
    bnd_image_free(&image);
  }
  fclose(table);
  free(canvas);
  assert_int_equal(wrong, 0);
  assert_true(compared >= 80);
}

static void orientation_can_be_left_alone(void **state) {
  (void)state;
  char *data;
  size_t size;
  bnd_image stored, upright;
  assert_int_equal(bnd_file_read(IMAGES "exif_6.jpg", 1 << 20, &data, &size, NULL), BND_OK);
  assert_int_equal(bnd_image_decode_stored("x", data, size, &stored, NULL), BND_OK);
  assert_int_equal(bnd_image_decode("x", data, size, &upright, NULL), BND_OK);
  assert_true(stored.width == 40 && stored.height == 26 && upright.width == 26 && upright.height == 40);
  /* orientation 6: turned clockwise; the top left stored pixel shows at the top right */
  assert_memory_equal(stored.pixels, upright.pixels + 25 * 3, 3);
  bnd_image_free(&stored);
  bnd_image_free(&upright);
  free(data);
}

/* Cut anywhere, a file is refused with its name (a JPEG that lacks nothing but its end marker is whole). */
static void truncated_files_are_refused(void **state) {
  (void)state;
  static const char *const names[] = {"rgb_420.jpg", "progressive_420.jpg", "cmyk.jpg", "rgb8_interlaced.png", "palette8_trns.png", "rgba16.png"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    char path[4096], *data;
    size_t size;
    snprintf(path, sizeof path, IMAGES "%s", names[i]);
    assert_int_equal(bnd_file_read(path, 1 << 20, &data, &size, NULL), BND_OK);
    const bool jpeg = strstr(names[i], ".jpg") != NULL;
    for (size_t cut = 0; cut < size - (jpeg ? 3 : 1); cut += 1 + cut / 40) {
      char *part = malloc(cut ? cut : 1); /* of exactly this size, so that reading past the end shows */
      memcpy(part, data, cut);
      bnd_image image;
      bnd_error error = {0};
      const bnd_status status = bnd_image_decode(names[i], part, cut, &image, &error);
      if (status == BND_OK) fail_msg("%s cut at %zu of %zu was accepted", names[i], cut, size);
      assert_null(image.pixels);
      assert_ptr_equal(strstr(error.message, names[i]), error.message);
      free(part);
    }
    free(data);
  }
}

/* One byte changed: decoded or refused, never a crash (meant for the sanitizers). */
static void damaged_files_do_no_harm(void **state) {
  (void)state;
  static const char *const names[] = {"rgb_420.jpg", "progressive_444.jpg", "ycck.jpg", "exif_good_text.jpg", "grey16_interlaced.png",
                                      "palette2_trns.png", "rgb8_exif6.png"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    char path[4096], *data;
    size_t size;
    snprintf(path, sizeof path, IMAGES "%s", names[i]);
    assert_int_equal(bnd_file_read(path, 1 << 20, &data, &size, NULL), BND_OK);
    uint32_t random = 1;
    for (int round = 0; round < 300; round++) {
      random = random * 1664525u + 1013904223u;
      const size_t at = (random >> 8) % size;
      const char before = data[at];
      data[at] ^= (char)(1 << (random >> 5 & 7));
      bnd_image image;
      bnd_error error = {0};
      if (bnd_image_decode(names[i], data, size, &image, &error) != BND_OK) assert_null(image.pixels);
      bnd_image_free(&image);
      data[at] = before;
    }
    free(data);
  }
}

static void put_32(uint8_t *at, uint32_t value) {
  for (int i = 0; i < 4; i++) at[i] = (uint8_t)(value >> (24 - 8 * i));
}

/* Headers that promise more than the limit are refused before memory is taken. */
static void sizes_that_lie_are_refused(void **state) {
  (void)state;
  char *data;
  size_t size;
  bnd_image image;
  bnd_error error;
  assert_int_equal(bnd_file_read(IMAGES "rgb8.png", 1 << 20, &data, &size, NULL), BND_OK);
  put_32((uint8_t *)data + 16, 0x00010000);
  put_32((uint8_t *)data + 20, 0x00010000);
  put_32((uint8_t *)data + 29, checksum(data + 12, 17));
  assert_int_equal(bnd_image_decode("huge.png", data, size, &image, &error), BND_ERROR_FORMAT);
  assert_non_null(strstr(error.message, "65536 x 65536"));
  free(data);
  assert_int_equal(bnd_file_read(IMAGES "rgb_444.jpg", 1 << 20, &data, &size, NULL), BND_OK);
  uint8_t *frame = memmem(data, size, "\xff\xc0\x00\x11", 4);
  assert_non_null(frame);
  memset(frame + 5, 0xf0, 4); /* 61680 x 61680 */
  assert_int_equal(bnd_image_decode("huge.jpg", data, size, &image, &error), BND_ERROR_FORMAT);
  assert_non_null(strstr(error.message, "61680 x 61680"));
  free(data);
}

static void other_files_are_named_for_what_they_are(void **state) {
  (void)state;
  bnd_image image;
  bnd_error error;
  assert_int_equal(bnd_image_decode("a", "RIFF\0\0\0\0WEBPVP8 ", 16, &image, &error), BND_ERROR_UNSUPPORTED);
  assert_string_equal(error.message, "a: is a WebP image; convert it to JPEG or PNG");
  assert_int_equal(bnd_image_decode("a", "", 0, &image, &error), BND_ERROR_FORMAT);
  assert_int_equal(bnd_image_decode("a", "hello", 5, &image, &error), BND_ERROR_FORMAT);
  assert_int_equal(bnd_image_read(IMAGES "absent.jpg", &image, &error), BND_ERROR_IO);
  assert_int_equal(bnd_image_read(IMAGES, &image, &error), BND_ERROR_IO);
  assert_null(image.pixels);
}

static void written_images_come_back(void **state) {
  (void)state;
  char folder[] = "/tmp/binade-test-XXXXXX", path[64];
  assert_non_null(mkdtemp(folder));
  bnd_image image, again;
  assert_int_equal(bnd_image_read(IMAGES "rgb_444.jpg", &image, NULL), BND_OK);
  snprintf(path, sizeof path, "%s/a.png", folder);
  assert_int_equal(bnd_image_write_png(path, &image, NULL), BND_OK);
  assert_int_equal(bnd_image_read(path, &again, NULL), BND_OK);
  assert_memory_equal(image.pixels, again.pixels, bytes(&image));
  bnd_image_free(&again);
  unlink(path);
  snprintf(path, sizeof path, "%s/a.jpg", folder);
  assert_int_equal(bnd_image_write_jpeg(path, &image, 95, NULL), BND_OK);
  assert_int_equal(bnd_image_read(path, &again, NULL), BND_OK);
  assert_true(again.width == image.width && again.height == image.height);
  double difference = 0;
  for (size_t i = 0; i < bytes(&image); i++) difference += abs(image.pixels[i] - again.pixels[i]);
  assert_true(difference / (double)bytes(&image) < 6);
  assert_int_equal(bnd_image_write_jpeg(path, &image, 0, NULL), BND_ERROR_ARGUMENT);
  assert_int_equal(bnd_image_write_png("/proc/no/such.png", &image, NULL), BND_ERROR_IO);
  bnd_image_free(&again);
  bnd_image_free(&image);
  unlink(path);
  assert_int_equal(rmdir(folder), 0);
}

static void large_images_work(void **state) {
  (void)state;
  bnd_image image, again;
  void *data;
  size_t size;
  assert_int_equal(bnd_image_create(8000, 8000, &image, NULL), BND_OK);
  bnd_draw_fill(&image, 1000, 2000, 7000, 7999, (bnd_color){200, 100, 50});
  assert_int_equal(bnd_image_encode_jpeg(&image, 80, &data, &size, NULL), BND_OK);
  assert_int_equal(bnd_image_decode("large", data, size, &again, NULL), BND_OK);
  assert_true(again.width == 8000 && again.height == 8000 && abs(again.pixels[(5000 * (size_t)8000 + 5000) * 3] - 200) < 4);
  free(data);
  bnd_image_free(&again);
  bnd_image_free(&image);
  assert_int_equal(bnd_image_create(1 << 14, 1 << 14, &image, NULL), BND_ERROR_FORMAT);
  assert_int_equal(bnd_image_create(-1, 5, &image, NULL), BND_ERROR_FORMAT);
}

static int count_color(const bnd_image *image, bnd_color color) {
  int count = 0;
  for (size_t i = 0; i < bytes(image); i += 3)
    count += image->pixels[i] == color.red && image->pixels[i + 1] == color.green && image->pixels[i + 2] == color.blue;
  return count;
}

static void drawing_stays_inside_the_image(void **state) {
  (void)state;
  const bnd_color red = {255, 0, 0};
  bnd_image image;
  assert_int_equal(bnd_image_create(30, 20, &image, NULL), BND_OK);
  bnd_draw_rectangle(&image, 5, 4, 15, 12, 2, red);
  assert_int_equal(count_color(&image, red), 10 * 8 - 6 * 4);
  bnd_draw_rectangle(&image, -100, -100, 1000, 1000, 3, red); /* all edges outside */
  assert_int_equal(count_color(&image, red), 10 * 8 - 6 * 4);
  bnd_draw_fill(&image, -5, -5, 2, 2, red);
  assert_int_equal(count_color(&image, red), 10 * 8 - 6 * 4 + 4);
  bnd_draw_fill(&image, 10, 10, 5, 5, red);
  bnd_draw_text(&image, -3, 15, "cut off on the right and below", 2, red);
  bnd_draw_box(&image, (float[4]){-1e30f, -1e30f, 1e30f, 1e30f}, "person 0.99", bnd_draw_palette(3));
  bnd_draw_box(&image, (float[4]){0.f / 1, 5, 3, 4}, "", red);
  bnd_image_free(&image);
}

static void text_is_drawn_as_designed(void **state) {
  (void)state;
  const bnd_color white = {255, 255, 255};
  static const char *const letter_a[] = {".###.", "#...#", "#...#", "#####", "#...#", "#...#", "#...#"};
  bnd_image image;
  assert_int_equal(bnd_image_create(14, 18, &image, NULL), BND_OK);
  bnd_draw_text(&image, 1, 1, "A", 2, white);
  for (int y = 0; y < 7; y++)
    for (int x = 0; x < 5; x++)
      assert_int_equal(image.pixels[((1 + y * 2) * 14 + 1 + x * 2) * 3] == 255, letter_a[y][x] == '#');
  assert_int_equal(bnd_draw_text_width("abc", 2), 36);
  /* no two printable characters look alike, none is empty but the space */
  bnd_image cells[95];
  for (int c = 0; c < 95; c++) {
    assert_int_equal(bnd_image_create(6, 8, &cells[c], NULL), BND_OK);
    bnd_draw_text(&cells[c], 0, 0, (char[2]){(char)(32 + c), '\0'}, 1, white);
    assert_int_equal(count_color(&cells[c], white) == 0, c == 0);
    for (int other = 0; other < c; other++)
      if (memcmp(cells[other].pixels, cells[c].pixels, 6 * 8 * 3) == 0) fail_msg("'%c' looks like '%c'", 32 + c, 32 + other);
  }
  for (int c = 0; c < 95; c++) bnd_image_free(&cells[c]);
  bnd_image_free(&image);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(every_flavour_equals_opencv),
      cmocka_unit_test(orientation_can_be_left_alone),
      cmocka_unit_test(truncated_files_are_refused),
      cmocka_unit_test(damaged_files_do_no_harm),
      cmocka_unit_test(sizes_that_lie_are_refused),
      cmocka_unit_test(other_files_are_named_for_what_they_are),
      cmocka_unit_test(written_images_come_back),
      cmocka_unit_test(large_images_work),
      cmocka_unit_test(drawing_stays_inside_the_image),
      cmocka_unit_test(text_is_drawn_as_designed),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
