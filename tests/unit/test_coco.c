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
#include "data/coco.h"
#include "data/transform.h"

static char annotation_file[] = "/tmp/binade-test-XXXXXX";

static int make_file(void **state) {
  (void)state;
  const int descriptor = mkstemp(annotation_file);
  return descriptor < 0 ? -1 : close(descriptor);
}

static int remove_file(void **state) {
  (void)state;
  return unlink(annotation_file);
}

static bnd_status open_text(const char *text, bnd_coco *coco, bnd_error *error) {
  assert_int_equal(bnd_file_write(annotation_file, text, strlen(text), NULL), BND_OK);
  return bnd_coco_open_files(annotation_file, "images", coco, error);
}

static const char small_set[] =
    "{\"info\": {\"images\": [1, 2], \"x\": [[{}]]}, \"licenses\": [{\"id\": 1}],\n"
    "\"annotations\": [\n"
    " {\"id\": 5, \"image_id\": 20, \"category_id\": 7, \"iscrowd\": 0,"
    " \"bbox\": [10, 20.5, 30, 40], \"area\": 600.5, \"segmentation\": [[1,2,3]]},\n"
    " {\"id\": 6, \"image_id\": 10, \"category_id\": 3, \"iscrowd\": 1, \"bbox\": [0, 0, 5, 5],"
    " \"segmentation\": {\"counts\": [1], \"size\": [2, 3]}},\n"
    " {\"id\": 7, \"image_id\": 20, \"category_id\": 3, \"bbox\": [90, 5, 30, 4]},\n"
    " {\"id\": 8, \"image_id\": 30, \"category_id\": 3, \"iscrowd\": false, \"bbox\": [-20, 5, 10, 4]},\n"
    " {\"id\": 9, \"image_id\": 40, \"category_id\": 3, \"iscrowd\": 0, \"bbox\": [200, 5, -150, 4]}],\n"
    "\"images\": [{\"id\": 20, \"width\": 100, \"height\": 50, \"file_name\": \"b/a..jpg\", \"id2\": {\"id\": 3}},\n"
    " {\"id\": 10, \"width\": 64, \"height\": 48.0}, {\"id\": 30, \"width\": 1, \"height\": 1, \"file_name\": \"c.png\"},\n"
    " {\"id\": 40, \"width\": 100, \"height\": 10}, {\"id\": 50, \"width\": 8000, \"height\": 8000}],\n"
    "\"categories\": [{\"id\": 7, \"name\": \"zebra\"}, {\"supercategory\": \"a\", \"id\": 3, \"name\": \"ant\"}]}";

static void everything_is_in_its_place(void **state) {
  (void)state;
  bnd_coco coco;
  bnd_error error = {0};
  if (open_text(small_set, &coco, &error) != BND_OK) fail_msg("%s", error.message);
  assert_true(coco.category_count == 2 && coco.image_count == 5 && coco.annotation_count == 5);
  assert_string_equal(coco.categories[0].name, "ant"); /* by id */
  assert_string_equal(coco.categories[1].name, "zebra");
  assert_true(coco.images[0].id == 20 && coco.images[1].id == 10 && coco.images[1].height == 48); /* in the order of the file */
  assert_string_equal(coco.images[1].file_name, "000000000010.jpg");
  char path[64];
  assert_int_equal(bnd_coco_image_path(&coco, 0, path, sizeof path, NULL), BND_OK);
  assert_string_equal(path, "images/b/a..jpg");
  assert_int_equal(bnd_coco_image_path(&coco, 0, path, 15, NULL), BND_ERROR_ARGUMENT);
  assert_true(coco.images[0].first == 0 && coco.images[0].count == 2 && coco.images[1].first == 2);
  const bnd_coco_annotation *a = coco.annotations;
  assert_true(a[0].id == 5 && a[0].label == 1 && a[0].image == 0 && !a[0].crowd && a[0].area == 600.5 && a[0].bbox[1] == 20.5);
  assert_true(a[1].id == 7 && a[1].label == 0 && a[1].area == 120);
  assert_true(a[2].id == 6 && a[2].crowd && a[2].image == 1);
  /* image 30: its box clips to zero width at the left edge and stays, as in the original; image 40: turned inside out and gone; 50: no box */
  assert_int_equal(coco.annotated_count, 3);
  assert_true(coco.annotated[0] == 0 && coco.annotated[1] == 1 && coco.annotated[2] == 2);
  float box[4];
  assert_true(bnd_coco_clipped_box(&coco.images[0], &a[1], box));
  assert_true(box[0] == 90 && box[1] == 5 && box[2] == 100 && box[3] == 9);
  bnd_targets targets;
  const bnd_preprocessing p = bnd_preprocessing_yolo_nas(640, 640);
  assert_int_equal(bnd_targets_create(&coco, 2, &p, 1, 1, &targets, NULL), BND_OK);
  assert_true(targets.count == 0 && targets.crowd_count == 0); /* without area */
  bnd_targets_free(&targets);
  assert_int_equal(bnd_targets_create(&coco, 1, &p, 64, 48, &targets, NULL), BND_OK);
  assert_true(targets.count == 0 && targets.crowd_count == 1 && targets.rows[0].w == 5 * 9.9375f && targets.rows[0].label == 0);
  bnd_targets_free(&targets);
  bnd_coco_close(&coco);
  bnd_coco_close(&coco);
}

#define IMAGES "\"images\": [{\"id\": 1, \"width\": 10, \"height\": 10}]"
#define CATEGORIES "\"categories\": [{\"id\": 1, \"name\": \"a\"}]"
#define WITH(annotation) "{" IMAGES "," CATEGORIES ",\n\"annotations\": [" annotation "]}"
#define WITH_IMAGE(image) "{\"annotations\": [], " CATEGORIES ",\n\"images\": [" image "]}"

static void contradictions_are_refused_with_their_place(void **state) {
  (void)state;
  static const struct {
    const char *text, *message;
  } cases[] = {
      {WITH("{\"id\": 4, \"image_id\": 2, \"category_id\": 1, \"bbox\": [1,2,3,4]}"), ": annotations[0] (id 4): image_id 2 is not among the images"},
      {WITH("{\"id\": 4, \"image_id\": 1, \"category_id\": 9, \"bbox\": [1,2,3,4]}"),
       ": annotations[0] (id 4): category_id 9 is not among the categories"},
      {WITH("{\"image_id\": 1, \"category_id\": 1, \"bbox\": [1,2,3]}"), ": line 2: annotations[0]: \"bbox\" must be an array of four numbers"},
      {WITH("{\"image_id\": 1, \"category_id\": 1, \"bbox\": [1,2,3,4,5]}"), ": line 2: annotations[0]: \"bbox\" must be an array of four numbers"},
      {WITH("{\"image_id\": 1, \"category_id\": 1, \"bbox\": [1,2,3,\"4\"]}"), ": line 2: annotations[0]: \"bbox\" must be"},
      {WITH("{\"image_id\": 1, \"category_id\": 1, \"bbox\": [1,2,3,1e400]}"), ": line 2: annotations[0]: \"bbox\" must be"},
      {WITH("{\"image_id\": 1, \"category_id\": 1, \"bbox\": [[1,2,3,4]]}"), ": line 2: annotations[0]: \"bbox\" must be"},
      {WITH("{\"image_id\": 1, \"category_id\": 1, \"bbox\": {}}"), ": line 2: annotations[0]: \"bbox\" must be"},
      {WITH("{\"image_id\": 1, \"category_id\": 1, \"bbox\": null}"), ": line 2: annotations[0]: \"bbox\" must be"},
      {WITH("{\"image_id\": 1, \"category_id\": 1}"), ": line 2: annotations[0]: \"bbox\" is missing"},
      {WITH("{\"image_id\": \"1\", \"category_id\": 1}"), ": line 2: annotations[0]: \"image_id\" must be a whole number"},
      {WITH("{\"image_id\": 1.5, \"category_id\": 1}"), ": line 2: annotations[0]: \"image_id\" must be a whole number"},
      {WITH("{\"image_id\": 1, \"image_id\": 1}"), ": line 2: annotations[0]: \"image_id\" occurs twice"},
      {WITH("{\"image_id\": 1, \"iscrowd\": [0]}"), ": line 2: annotations[0]: \"iscrowd\" must be 0 or 1"},
      {WITH("7"), ": line 2: annotations[0] must be an object"},
      {WITH("{\"id\": 3, \"image_id\": 1, \"category_id\": 1, \"bbox\": [1,2,3,4]},"
            "{\"id\": 3, \"image_id\": 1, \"category_id\": 1, \"bbox\": [1,2,3,4]}"),
       ": annotations[0] and annotations[1] have the same id 3"},
      {WITH_IMAGE("{\"id\": 1, \"width\": 5, \"height\": 5}, {\"id\": 1, \"width\": 5, \"height\": 5}"),
       ": images[0] and images[1] have the same id 1"},
      {WITH_IMAGE("{\"id\": 1, \"width\": 0, \"height\": 5}"), ": line 2: images[0]: \"width\" is not a size in pixels"},
      {WITH_IMAGE("{\"id\": 1, \"width\": 5}"), ": line 2: images[0]: \"height\" is missing"},
      {WITH_IMAGE("{\"id\": 1, \"width\": 5, \"height\": 5, \"file_name\": \"../../etc/passwd\"}"),
       ": line 2: images[0]: \"file_name\" must name a file inside"},
      {WITH_IMAGE("{\"id\": 1, \"width\": 5, \"height\": 5, \"file_name\": \"a/..\"}"), ": line 2: images[0]: \"file_name\" must name a file inside"},
      {WITH_IMAGE("{\"id\": 1, \"width\": 5, \"height\": 5, \"file_name\": \"/etc/passwd\"}"),
       ": line 2: images[0]: \"file_name\" must name a file inside"},
      {WITH_IMAGE("{\"id\": 1, \"width\": 5, \"height\": 5, \"file_name\": \"\"}"), ": line 2: images[0]: \"file_name\" must name a file inside"},
      {WITH_IMAGE("{\"id\": 1, \"width\": 5, \"height\": 5, \"file_name\": 3}"), ": line 2: images[0]: \"file_name\" must be a string"},
      {WITH_IMAGE(""), ": lists no images"},
      {"{" IMAGES ", \"annotations\": [], \"categories\": []}", ": lists no categories"},
      {"{" IMAGES ", \"annotations\": []}", ": has no \"categories\""},
      {"{" IMAGES ", " IMAGES "}", ": line 1: \"images\" occurs twice"},
      {"{\"images\": {}}", ": line 1: \"images\" must be an array"},
      {"{\"images\": 3}", ": line 1: \"images\" must be an array"},
      {"[]", ": line 1: an annotation file in COCO's format is one object"},
      {"{" IMAGES ",\n\"annotations\": [{\"id\": 1, ", ": line 2, byte"},
      {"{" IMAGES ", \"annotations\": [], \"categories\": [{\"id\": 1, \"name\": \"a\"}, {\"id\": 1, \"name\": \"b\"}]}", "have the same id 1"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    bnd_coco coco;
    bnd_error error = {0};
    if (open_text(cases[i].text, &coco, &error) != BND_ERROR_FORMAT) fail_msg("accepted: %s", cases[i].text);
    if (!strstr(error.message, cases[i].message)) fail_msg("%s: %s", cases[i].text, error.message);
    assert_ptr_equal(strstr(error.message, annotation_file), error.message);
    assert_null(coco.arena);
  }
}

static void absent_folder_is_explained(void **state) {
  (void)state;
  bnd_coco coco;
  bnd_error error;
  assert_int_equal(bnd_coco_open("/nonexistent", "val2017", &coco, &error), BND_ERROR_IO);
  assert_non_null(strstr(error.message, "/nonexistent/annotations/instances_val2017.json: cannot be opened"));
  assert_non_null(strstr(error.message, "images/<split>/"));
}

static void sizes_of_the_shared_sets(void **state) {
  (void)state;
  static const struct {
    const char *folder, *split;
    size_t images, annotated, categories;
  } cases[] = {{SHARED_DIR "/data/coco", "train2017", 128, 126, 80}, {SHARED_DIR "/data/coco", "val2017", 80, 80, 80}};
  if (access(SHARED_DIR "/data/coco", F_OK) != 0) skip();
  for (size_t i = 0; i < 2; i++) {
    bnd_coco coco;
    assert_int_equal(bnd_coco_open(cases[i].folder, cases[i].split, &coco, NULL), BND_OK);
    assert_int_equal(coco.image_count, cases[i].images);
    assert_int_equal(coco.annotated_count, cases[i].annotated);
    assert_int_equal(coco.category_count, cases[i].categories);
    assert_string_equal(coco.categories[79].name, "toothbrush");
    assert_int_equal(coco.categories[79].id, 90);
    bnd_coco_close(&coco);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(everything_is_in_its_place),
      cmocka_unit_test(contradictions_are_refused_with_their_place),
      cmocka_unit_test(absent_folder_is_explained),
      cmocka_unit_test(sizes_of_the_shared_sets),
  };
  return cmocka_run_group_tests(tests, make_file, remove_file);
}
