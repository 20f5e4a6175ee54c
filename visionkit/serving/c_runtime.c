/* Answers requests with a SavedModel through TensorFlow's C API, without Python.

   c_runtime SAVED_MODEL LIBRARY..., in a folder that holds `plan.txt`:
     each line of it is INPUT_OP INDEX FILE COUNT and COUNT times OUTPUT_OP INDEX FILE.
   A tensor file holds int32 type, int32 rank, int64 sides, and the data; a string is an
   int64 length and its bytes. `status.txt` gets a line per request, the code and the
   message of its status, behind one line each for XLA and for the loading.

   This is the path of a model server: LoadSavedModel, then Session::Run by the tensor
   names of the signatures, with XLA disabled. */

#include <dlfcn.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tensorflow/c/c_api.h"

#define NAME 4096
#define OUTPUTS 64

/* Looked up in the libraries at run time: to link against a gigabyte takes minutes. */
#define TF(name) ((__typeof__(&TF_##name))symbol("TF_" #name))

static void die(const char *what, const char *about) {
  fprintf(stderr, "%s: %s\n", what, about);
  exit(3);
}

static void *symbol(const char *name) {
  void *found = dlsym(RTLD_DEFAULT, name);
  if (!found) die("the libraries lack", name);
  return found;
}

static void report(FILE *log, TF_Status *status) {
  fprintf(log, "%d ", (int)TF(GetCode)(status));
  for (const char *c = TF(Message)(status); *c; c++) fputc(*c == '\n' ? ' ' : *c, log);
  fputc('\n', log);
  fflush(log);
}

static void get(void *into, size_t bytes, FILE *file, const char *path) {
  if (bytes && fread(into, bytes, 1, file) != 1) die("cannot read", path);
}

static TF_Tensor *read_tensor(const char *path) {
  FILE *file = fopen(path, "rb");
  if (!file) die("cannot open", path);
  int32_t head[2];
  int64_t sides[16], count = 1;
  get(head, sizeof head, file, path);
  if (head[1] > 16) die("too many dimensions", path);
  get(sides, sizeof(int64_t) * (size_t)head[1], file, path);
  for (int i = 0; i < head[1]; i++) count *= sides[i];
  TF_DataType type = (TF_DataType)head[0];
  size_t item = type == TF_STRING ? sizeof(TF_TString) : TF(DataTypeSize)(type);
  TF_Tensor *tensor = TF(AllocateTensor)(type, sides, head[1], item * (size_t)count);
  if (type != TF_STRING) {
    get(TF(TensorData)(tensor), item * (size_t)count, file, path);
  } else {
    TF_TString *strings = TF(TensorData)(tensor);
    for (int64_t i = 0; i < count; i++) {
      int64_t length;
      get(&length, sizeof length, file, path);
      char *bytes = malloc((size_t)length + 1);
      get(bytes, (size_t)length, file, path);
      TF(StringInit)(&strings[i]);
      TF(StringCopy)(&strings[i], bytes, (size_t)length);
      free(bytes);
    }
  }
  fclose(file);
  return tensor;
}

static void write_tensor(const char *path, TF_Tensor *tensor) {
  FILE *file = fopen(path, "wb");
  if (!file) die("cannot write", path);
  int32_t head[2] = {(int32_t)TF(TensorType)(tensor), TF(NumDims)(tensor)};
  fwrite(head, sizeof head, 1, file);
  for (int i = 0; i < head[1]; i++) {
    int64_t side = TF(Dim)(tensor, i);
    fwrite(&side, sizeof side, 1, file);
  }
  if (TF(TensorType)(tensor) != TF_STRING) {
    fwrite(TF(TensorData)(tensor), 1, TF(TensorByteSize)(tensor), file);
  } else {
    TF_TString *strings = TF(TensorData)(tensor);
    for (int64_t i = 0; i < TF(TensorElementCount)(tensor); i++) {
      int64_t length = (int64_t)TF(StringGetSize)(&strings[i]);
      fwrite(&length, sizeof length, 1, file);
      fwrite(TF(StringGetDataPointer)(&strings[i]), 1, (size_t)length, file);
    }
  }
  if (fclose(file)) die("cannot write", path);
}

static TF_Output find(TF_Graph *graph, const char *name, int index) {
  TF_Output output = {TF(GraphOperationByName)(graph, name), index};
  if (!output.oper) die("the graph has no op", name);
  return output;
}

int main(int argc, char **argv) {
  if (argc < 3) die("usage", "c_runtime SAVED_MODEL LIBRARY...");
  for (int i = 2; i < argc; i++)
    if (!dlopen(argv[i], RTLD_NOW | RTLD_GLOBAL)) die("cannot load", dlerror());
  FILE *plan = fopen("plan.txt", "r"), *log = fopen("status.txt", "w");
  if (!plan || !log) die("cannot open", "plan.txt, status.txt");
  TF_Status *status = TF(NewStatus)();

  /* A C++ symbol, which another release may name otherwise. */
  void (*disable_xla)(void) =
      (void (*)(void))dlsym(RTLD_DEFAULT, "_ZN10tensorflow21DisableXlaCompilationEv");
  if (disable_xla) disable_xla();
  fprintf(log, "%d XLA\n", disable_xla ? 0 : 1);

  const char *tags[] = {"serve"};
  TF_Graph *graph = TF(NewGraph)();
  TF_Session *session = TF(LoadSessionFromSavedModel)(
      TF(NewSessionOptions)(), NULL, argv[1], tags, 1, graph, NULL, status);
  report(log, status);
  if (TF(GetCode)(status) != TF_OK) return 0;

  char name[NAME], file[NAME], files[OUTPUTS][NAME];
  int index, count;
  while (fscanf(plan, "%4095s %d %4095s %d", name, &index, file, &count) == 4) {
    if (count > OUTPUTS) die("too many outputs", name);
    TF_Output input = find(graph, name, index), outputs[OUTPUTS];
    TF_Tensor *value = read_tensor(file), *answers[OUTPUTS] = {NULL};
    for (int i = 0; i < count; i++) {
      if (fscanf(plan, "%4095s %d %4095s", name, &index, files[i]) != 3)
        die("cannot read", "plan.txt");
      outputs[i] = find(graph, name, index);
    }
    TF(SessionRun)(session, NULL, &input, &value, 1, outputs, answers, count, NULL, 0,
                  NULL, status);
    report(log, status);
    TF(DeleteTensor)(value);
    for (int i = 0; i < count; i++) {
      if (!answers[i]) continue;
      write_tensor(files[i], answers[i]);
      TF(DeleteTensor)(answers[i]);
    }
  }
  return 0;
}
