/* Using the library from a program of one's own: describe a checkpoint and, given a folder in COCO layout, quantize the network in it.

     cc main.c -o c-api $(pkg-config --cflags --libs binade)
     ./c-api CHECKPOINT [DATA OUTPUT] */
#include <stdio.h>

#include <binade/binade.h>

static void show_progress(void *user, const bnd_progress *progress) {
  (void)user;
  if (progress->done == progress->total) fprintf(stderr, "%s: %llu %s\n", progress->stage, (unsigned long long)progress->total, progress->unit);
}

static int failed(const bnd_error *error) {
  fprintf(stderr, "c-api: %s\n", error->message);
  return 1;
}

int main(int argc, char **argv) {
  if (argc != 2 && argc != 4) {
    fprintf(stderr, "usage: c-api CHECKPOINT [DATA OUTPUT]\n");
    return 2;
  }
  bnd_error error = {0};
  bnd_model *model = NULL;
  if (bnd_model_open(argv[1], &model, &error) != BND_OK) return failed(&error);
  char *text = NULL;
  const bnd_status status = bnd_model_describe(model, false, &text, &error);
  bnd_model_close(model);
  if (status != BND_OK) return failed(&error);
  printf("%s", text);
  bnd_free(text);
  if (argc == 2) return 0;

  const bnd_quantize_options options = {.checkpoint = argv[1], .data = argv[2], .output = argv[3], .calibration_images = 50, .no_evaluation = true};
  const bnd_context context = {.progress = show_progress};
  bnd_quantize_result result;
  if (bnd_quantize(&options, &context, &result, &error) != BND_OK) return failed(&error);
  for (int i = 0; i < result.stage_count; i++) printf("%s: %.1f s\n", result.stages[i].name, result.stages[i].seconds);
  return 0;
}
