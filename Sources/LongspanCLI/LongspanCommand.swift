import ArgumentParser
import Foundation
import LongspanKernels

/// The command `longspan`: errors are one line on stderr and exit code 1.
@main struct LongspanCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "longspan",
    abstract: "Runs language models over long texts on CPUs.",
    version: KernelContext.libraryVersion,
    subcommands: [
      InfoCommand.self, GenerateCommand.self, PerplexityCommand.self, CompareCommand.self, EvalCommand.self,
      BenchCommand.self, CallsCommand.self, ProfileCommand.self, CalibrateCommand.self,
    ])

  static func main() {
    do {
      var command = try parseAsRoot()
      try command.run()
    } catch let error as LongspanError {
      fail(error.message)
    } catch {
      // asking for help or the version is no failure
      guard exitCode(for: error) != .success else { exit(withError: error) }
      fail(message(for: error) + " (see 'longspan help')")
    }
  }

  private static func fail(_ message: String) -> Never {
    let line = message.split(whereSeparator: \.isNewline).joined(separator: " ")
    FileHandle.standardError.write(Data("longspan: \(line)\n".utf8))
    Foundation.exit(1)
  }
}
