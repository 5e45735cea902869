import ArgumentParser

/// The tasks that a model is asked to do, to see what it still can with a compressed cache.
struct EvalCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "eval", abstract: "Measures what a model can do with a long text, by cache policy.",
    subcommands: [PasskeyCommand.self])
}
