from pagewalk.cli import run

run()
