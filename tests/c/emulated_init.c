/* The first and only process of the machine that emulate_avx512.sh starts: it runs the programs
 * that /programs lists, one command a line, and switches the machine off. */
#include <stdio.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/wait.h>
#include <unistd.h>

enum { kMaxArguments = 8 };

static void run(char* line) {
  char* arguments[kMaxArguments + 1] = {NULL};
  int count = 0, status = -1;
  pid_t child;
  char* word = strtok(line, " \n");
  for (; word && count < kMaxArguments; word = strtok(NULL, " \n")) arguments[count++] = word;
  if (count == 0) return;
  printf("begins: %s\n", arguments[0]);
  fflush(stdout);
  child = fork();
  if (child == 0) {
    execv(arguments[0], arguments);
    _exit(127);
  }
  waitpid(child, &status, 0);
  printf("ended: %s with status %d\n", arguments[0], status);
}

int main(void) {
  char line[200];
  FILE* programs = fopen("/programs", "r");
  while (programs && fgets(line, sizeof line, programs)) run(line);
  printf("the end\n");
  fflush(stdout);
  sleep(1); /* until the serial line has it */
  reboot(RB_POWER_OFF);
  return 1;
}
