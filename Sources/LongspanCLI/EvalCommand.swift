import ArgumentParser

/// The tasks that a model is asked to do, to see what it still can with a compressed cache or filtered time steps.
struct EvalCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "eval",
    abstract: "Measures what a model can do with a long text, by cache policy or filter.",
    subcommands: [PasskeyCommand.self, LengthCommand.self])
}
